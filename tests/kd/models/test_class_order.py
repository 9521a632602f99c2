"""Whether a classifier numbers its classes as the labels do, told by its predictions alone."""

from __future__ import annotations

import numpy as np
import pytest

from kd.models.class_order import fit_of


def labels(classes: int, each: int) -> np.ndarray:
    """Sorted, as a folder gives them."""
    return np.repeat(np.arange(classes), each)


def noisy(labels_N: np.ndarray, *, classes: int, right: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels_N)) < right, labels_N, rng.integers(0, classes, len(labels_N)))


def test_a_classifier_in_another_order_is_told() -> None:
    """Folders 0 to 11 sorted as text, and a teacher that was trained on them sorted as numbers."""
    text = sorted(range(12), key=str)
    labels_N = labels(12, 6)
    fit = fit_of(np.array(text)[labels_N], labels_N, classes=12)
    # 0 and 1 alone stand in the same place.
    assert (fit.top1, fit.reordered, fit.chance, fit.images) == (pytest.approx(2 / 12), 1.0, 1 / 12, 72)
    assert fit.doubt == "its top-1 is 16.67 %, and would be 100.00 % if its classes stood in another order"


def test_two_classes_that_are_exchanged_are_told() -> None:
    labels_N = labels(10, 50)
    predicted_N = noisy(labels_N, classes=10, right=0.8)
    exchanged_N = np.array([1, 0, *range(2, 10)])[predicted_N]
    right, wrong = (fit_of(found_N, labels_N, classes=10) for found_N in (predicted_N, exchanged_N))
    assert right.doubt is None
    assert wrong.reordered == right.reordered == right.top1 == pytest.approx(0.82, abs=0.03)
    assert wrong.doubt is not None
    assert "another order" in wrong.doubt


def test_a_classifier_that_is_right_is_left_alone() -> None:
    for right in (0.3, 0.6, 1.0):
        for classes, each in ((2, 10), (3, 6), (10, 10), (100, 10)):
            labels_N = labels(classes, each)
            fit = fit_of(noisy(labels_N, classes=classes, right=right), labels_N, classes=classes)
            assert fit.doubt is None, (right, classes)


@pytest.mark.parametrize("classes", [2, 3, 10, 50])
def test_one_that_guesses_fits_no_order_better(classes: int) -> None:
    """An order that is found on some images is counted on others: noise fits none."""
    labels_N = labels(classes, 20)
    doubts = [
        fit_of(noisy(labels_N, classes=classes, right=0.0, seed=seed), labels_N, classes=classes).doubt
        for seed in range(40)
    ]
    assert sum("another order" in (doubt or "") for doubt in doubts) <= 1


def test_one_below_chance_is_told() -> None:
    labels_N = labels(4, 50)
    # Of each class a third to each of the others: no order is much better.
    rng = np.random.default_rng(0)
    predicted_N = (labels_N + rng.integers(1, 4, len(labels_N))) % 4
    assert fit_of(predicted_N, labels_N, classes=4).doubt == "its top-1 is 0.00 %, below chance (25.00 %)"


def test_a_class_may_have_no_image() -> None:
    labels_N = labels(3, 10)
    assert fit_of(labels_N, labels_N, classes=5).doubt is None
    assert fit_of(np.zeros(1, np.int64), np.zeros(1, np.int64), classes=5).top1 == 1.0


def test_of_very_many_classes_only_the_accuracy_is_looked_at() -> None:
    labels_N = np.arange(10_000)
    fit = fit_of(labels_N[::-1], labels_N, classes=10_000)
    assert fit.reordered == fit.top1 == 0
    assert fit.doubt is not None
