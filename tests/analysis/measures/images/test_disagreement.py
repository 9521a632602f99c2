"""Which images a distilled student wins and loses, on images that are written out."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import pytest
from scipy.stats import binomtest

from analysis.measures.images.disagreement import disagreement, mcnemar
from analysis.read.load import load_grid
from analysis.read.predictions import outcomes
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.predicting import logits_for, predicts, prepare_data

Maker = Callable[..., SyntheticGrid]

LABELS = {"test": [0, 0, 0, 0, 1, 1, 1, 1]}
TEACHER = [0, 0, 0, 1, 1, 1, 0, 0]  # wrong of images 3, 6 and 7
ALONE = [0, 0, 1, 1, 1, 0, 0, 0]  # wrong of 2, 3, 5, 6 and 7
TAUGHT = [0, 0, 0, 1, 0, 1, 1, 2]  # wrong of 3, 4 and 7


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 3), (2, 9), (26, 52), (400, 300)])
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(b, c) == mcnemar(c, b) == pytest.approx(expected, rel=1e-9)


def test_images_that_only_one_gets_right_and_what_is_shared_with_the_teacher(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0, 1])
    prepare_data(grid, classes=3, **LABELS)
    predicts(grid, grid.one(kind="teacher"), {"test": logits_for(TEACHER, 3)}, LABELS)
    for seed in (0, 1):
        alone, taught = (grid.one(mode=mode, seed=seed) for mode in ("baseline", "distilled"))
        predicts(grid, alone, {"test": logits_for(ALONE, 3)}, LABELS)
        predicts(grid, taught, {"test": logits_for(ALONE if seed else TAUGHT, 3)}, LABELS)
    loaded = load_grid(grid.storage)
    frame = disagreement(loaded, outcomes(loaded))
    assert frame["seed"].to_list() == [0, 1]
    first, same = frame.to_dicts()
    counted = ("images", "both_right", "only_distilled", "only_baseline", "neither")
    assert [first[name] for name in counted] == [8, 2, 3, 1, 2]
    assert first["mcnemar_p"] == pytest.approx(2 * (comb(4, 0) + comb(4, 1)) / 2**4)
    assert first["error_overlap_percent"] == pytest.approx(100 * 2 / 6)
    assert first["teacher_agreement_percent"] == pytest.approx(100 * 5 / 8)  # of 0, 1, 2, 3 and 5
    assert (first["teacher_wrong"], first["teacher_wrong_agreement_percent"]) == (3, pytest.approx(100 / 3))  # of 3
    assert [same[name] for name in counted] == [8, 3, 0, 0, 5]
    assert (same["mcnemar_p"], same["mcnemar_p_holm"], same["error_overlap_percent"]) == (1.0, 1.0, 100.0)


def test_what_has_no_predictions_beside_it_is_left_out_or_null(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0, 1])
    prepare_data(grid, classes=3, **LABELS)
    for row in grid.rows:
        grid.done(row, 50.0)
    predicts(grid, grid.one(mode="distilled", seed=0), {"test": logits_for(TAUGHT, 3)}, LABELS)
    predicts(grid, grid.one(mode="distilled", seed=1), {"test": logits_for(TAUGHT, 3)}, LABELS)
    predicts(grid, grid.one(mode="baseline", seed=1), {"test": logits_for(ALONE, 3)}, LABELS)
    loaded = load_grid(grid.storage)
    (row,) = disagreement(loaded, outcomes(loaded)).to_dicts()
    assert row["seed"] == 1
    assert row["teacher_agreement_percent"] is None
    assert disagreement(loaded, outcomes(loaded), split="val").is_empty()
