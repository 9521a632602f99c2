from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from kd.data.splits import stratified_draw


def unbalanced(classes: int, *, seed: int) -> np.ndarray:
    """Labels in no order, of classes between 20 and 80 images large."""
    rng = np.random.default_rng(seed)
    labels_N = np.repeat(np.arange(classes), rng.integers(20, 80, classes))
    rng.shuffle(labels_N)
    return labels_N


POOLS = [(classes, seed) for classes in (2, 5, 11) for seed in range(4)]


@pytest.mark.parametrize(("classes", "seed"), POOLS)
@pytest.mark.parametrize("rest", [True, False])
def test_splits_are_disjoint_and_of_the_exact_sizes(classes: int, seed: int, rest: bool) -> None:
    labels_N = unbalanced(classes, seed=seed)
    sizes = {"test": 37, "val": 23, "train": len(labels_N) - 60 if rest else 31}
    drawn = stratified_draw(labels_N, sizes=sizes, seed=seed)
    assert {name: len(index) for name, index in drawn.items()} == sizes
    for a, b in combinations(drawn.values(), 2):
        assert not set(a) & set(b)
    everything = np.concatenate(list(drawn.values()))
    assert len(np.unique(everything)) == sum(sizes.values())
    assert everything.min() >= 0
    assert everything.max() < len(labels_N)
    assert all((np.diff(index) > 0).all() for index in drawn.values())


@pytest.mark.parametrize(("classes", "seed"), POOLS)
def test_each_class_has_its_share_of_what_was_left_within_one_image(classes: int, seed: int) -> None:
    labels_N = unbalanced(classes, seed=seed)
    left = np.bincount(labels_N)
    drawn = stratified_draw(labels_N, sizes={"test": 37, "val": 23, "train": 31}, seed=seed)
    for index in drawn.values():
        counts = np.bincount(labels_N[index], minlength=classes)
        share = len(index) * left / left.sum()
        assert (abs(counts - share) < 1).all()
        left = left - counts


def test_classes_of_equal_size_get_equal_splits() -> None:
    labels_N = np.tile(np.arange(4), 25)
    drawn = stratified_draw(labels_N, sizes={"test": 20, "val": 12, "train": 68}, seed=3)
    counts = {name: np.bincount(labels_N[index]).tolist() for name, index in drawn.items()}
    assert counts == {"test": [5] * 4, "val": [3] * 4, "train": [17] * 4}


def test_images_left_over_go_to_the_largest_remainders_then_the_first_classes() -> None:
    # Shares of 7 out of 20: 3.85, 2.1, 1.05, so the seventh image goes to class 0.
    labels_N = np.repeat([0, 1, 2], [11, 6, 3])
    drawn = stratified_draw(labels_N, sizes={"test": 7}, seed=0)
    assert np.bincount(labels_N[drawn["test"]]).tolist() == [4, 2, 1]
    # Shares of 5 out of 12: 1.67 each, so one class gets one fewer: the last.
    labels_N = np.repeat([0, 1, 2], [4, 4, 4])
    drawn = stratified_draw(labels_N, sizes={"test": 5}, seed=0)
    assert np.bincount(labels_N[drawn["test"]]).tolist() == [2, 2, 1]


def test_the_seed_decides() -> None:
    labels_N = unbalanced(5, seed=0)
    sizes = {"test": 40, "train": 100}
    first = stratified_draw(labels_N, sizes=sizes, seed=0)
    again = stratified_draw(labels_N, sizes=sizes, seed=0)
    other = stratified_draw(labels_N, sizes=sizes, seed=1)
    for name in sizes:
        assert (first[name] == again[name]).all()
        assert (first[name] != other[name]).any()


def test_a_class_is_shuffled_not_taken_from_its_head() -> None:
    labels_N = np.zeros(1000, dtype=np.int64)
    (index,) = stratified_draw(labels_N, sizes={"test": 100}, seed=0).values()
    assert 300 < index.mean() < 700  # 500 is expected, 49.5 from the head; sigma is 27


def test_a_later_split_does_not_change_an_earlier_one() -> None:
    labels_N = unbalanced(5, seed=0)
    small, large = (stratified_draw(labels_N, sizes={"test": 40, "train": n}, seed=0) for n in (50, 100))
    assert (small["test"] == large["test"]).all()


def test_more_images_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"splits ask for 21 images \(test 5, train 16\), the data set has 20"):
        stratified_draw(np.tile(np.arange(2), 10), sizes={"test": 5, "train": 16}, seed=0)


def test_a_split_without_one_of_the_classes_is_an_error() -> None:
    labels_N = np.repeat([0, 1], [99, 1])
    with pytest.raises(
        ValueError, match=r"a val split of 10 images leaves out class 1 \(1 image left\): make it larger, or"
    ):
        stratified_draw(labels_N, sizes={"val": 10, "train": 90}, seed=0)


def test_an_empty_split_is_empty_not_an_error() -> None:
    drawn = stratified_draw(np.tile(np.arange(2), 10), sizes={"test": 4, "val": 0, "train": 16}, seed=0)
    assert len(drawn["val"]) == 0
    assert len(drawn["train"]) == 16
