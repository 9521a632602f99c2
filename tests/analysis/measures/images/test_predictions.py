"""What images say of a model, against scikit-learn and against the evaluation that a launch makes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, recall_score

from analysis.measures.images.predictions import balanced, by_class, confusion, reliability
from analysis.read.predictions import OUTCOMES
from kd.evaluate import expected_calibration_error, rounded

CLASSES = 6


def drawn(seed: int, *, stage: str = "a", split: str = "test", images: int = 500) -> tuple[pl.DataFrame, torch.Tensor]:
    """Outcomes as they are read, and the probabilities that they are of. No image is of the last class."""
    rng = np.random.default_rng(seed)
    labels_N = rng.choice(CLASSES - 1, images, p=[0.5, 0.3, 0.1, 0.06, 0.04])
    logits_NC = rng.normal(0, 1, (images, CLASSES))
    logits_NC[np.arange(images), labels_N] += np.array([2.0, 1.0, 0.5, 0.5, -30.0])[labels_N]
    probabilities_NC = rounded(torch.from_numpy(logits_NC)).float().softmax(dim=1)
    columns = {
        "stage_id": [stage] * images,
        "split": [split] * images,
        "image": np.arange(images),
        "label": labels_N,
        "predicted": probabilities_NC.argmax(dim=1).numpy(),
        "confidence": probabilities_NC.amax(dim=1).numpy(),
    }
    return pl.DataFrame(columns).cast(dict(OUTCOMES)), probabilities_NC


def test_accuracy_by_class_and_balanced_accuracy_are_those_of_scikit_learn() -> None:
    one, other = drawn(0)[0], drawn(1, stage="b", split="val")[0]
    frame = by_class(pl.concat([other, one]))
    assert frame["stage_id"].unique(maintain_order=True).to_list() == ["b", "a"]
    for images in (one, other):
        y, predicted, stage = images["label"], images["predicted"], images["stage_id"][0]
        of = frame.filter(pl.col("stage_id") == stage)
        assert of["label"].to_list() == [0, 1, 2, 3, 4]
        recalls = recall_score(y, predicted, labels=[0, 1, 2, 3, 4], average=None)
        assert of["recall_percent"].to_list() == pytest.approx((100 * recalls).tolist(), rel=1e-12)
        assert of["images"].to_list() == np.bincount(y).tolist()
        (row,) = balanced(images).to_dicts()
        with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
            expected = balanced_accuracy_score(y, predicted)
        assert row["balanced_percent"] == pytest.approx(100 * expected, rel=1e-12)
        assert row["top1_percent"] == pytest.approx(100 * (y == predicted).mean(), rel=1e-12)
        assert (row["images"], row["classes"], row["never_right"]) == (500, 5, [4])


def test_confusion_is_scikit_learns_matrix_without_its_zeros() -> None:
    images, _ = drawn(2)
    matrix_CC = confusion_matrix(images["label"], images["predicted"], labels=range(CLASSES))
    frame = confusion(images)
    expected = [(i, j, int(matrix_CC[i, j])) for i in range(CLASSES) for j in range(CLASSES) if matrix_CC[i, j]]
    assert frame.select("label", "predicted", "images").rows() == expected
    shares = frame.group_by("label").agg(pl.col("share_percent").sum())["share_percent"]
    assert shares.to_list() == pytest.approx([100.0] * 5)


def test_bins_of_confidence_are_those_of_the_calibration_error() -> None:
    """Their mean gap, weighted by images, is the error that the evaluation computes (Guo et al., equation 3)."""
    images, probabilities_NC = drawn(3)
    frame = reliability(images)
    labels_N = torch.from_numpy(images["label"].to_numpy().astype(np.int64))
    ece = (frame["gap_points"].abs() * frame["images"]).sum() / frame["images"].sum()
    assert ece == pytest.approx(100 * expected_calibration_error(probabilities_NC, labels_N), rel=1e-6)
    assert frame["images"].sum() == 500
    for row in frame.to_dicts():
        inside = images.filter(pl.col("confidence") > row["low"], pl.col("confidence") <= row["high"])
        assert row["images"] == inside.height
        hits = (inside["label"] == inside["predicted"]).mean()
        assert row["accuracy_percent"] == pytest.approx(100 * float(str(hits)))


def test_nothing_gives_nothing() -> None:
    empty = pl.DataFrame(schema=OUTCOMES)
    assert all(make(empty).is_empty() for make in (by_class, balanced, confusion, reliability))
