"""An interval with the noise of seeds and of images: its two parts by their formulas, and what it covers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import t

from analysis.measures.images.image_noise import intervals, with_image_noise
from analysis.read.load import load_grid
from analysis.read.predictions import outcomes
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.predicting import logits_for, predicts, prepare_data

Maker = Callable[..., SyntheticGrid]


def test_of_one_seed_it_is_the_binomial_error_of_its_images() -> None:
    scores_NS = (np.arange(1000) < 800).astype(float)[:, None]
    (found,) = intervals([scores_NS], resamples=20_000)
    error = math.sqrt(0.8 * 0.2 / 1000)
    assert found.mean == pytest.approx(0.8)
    assert (found.seeds, found.seeds_error) == (1, None)
    assert found.images_error == pytest.approx(error, rel=0.02)
    assert found.high - found.mean == pytest.approx(t.ppf(0.975, 999) * found.images_error)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_seeds_that_differ_in_all_images_alike_leave_students_t() -> None:
    """Of means 0.1, 0.2 and 0.6 without any spread over images: t of two degrees of freedom times sd / sqrt(3)."""
    means_S = np.array([0.1, 0.2, 0.6])
    (found,) = intervals([np.tile(means_S, (50, 1))], resamples=40_000)
    half = t.ppf(0.975, 2) * means_S.std(ddof=1) / math.sqrt(3)
    assert found.seeds_error == pytest.approx(means_S.std(ddof=1) / math.sqrt(3))
    assert found.images_error == pytest.approx(0, abs=1e-12)
    assert found.high - found.mean == pytest.approx(half, rel=0.02)


def test_images_that_differ_in_all_seeds_alike_leave_the_error_of_images() -> None:
    column_N = (np.arange(400) < 300).astype(float)
    (found,) = intervals([np.tile(column_N[:, None], (1, 3))], resamples=20_000)
    error = math.sqrt(0.75 * 0.25 / 400)
    assert found.seeds_error == 0
    assert found.high - found.mean == pytest.approx(t.ppf(0.975, 399) * error, rel=0.03)


def test_it_is_a_function_of_its_arguments_and_the_same_alone_and_beside_others() -> None:
    one, other = (np.random.default_rng(seed).integers(0, 2, (60, 3)).astype(float) for seed in (0, 1))
    assert intervals([one, other]) == intervals([one, other])
    assert [*intervals([one]), *intervals([other])] == intervals([one, other])
    assert intervals([one], seed=1) != intervals([one])
    assert intervals([]) == []
    with pytest.raises(ValueError, match="not of the same images"):
        intervals([one, one[:5]])


@pytest.mark.long
@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.05), (3, 0.05), (3, 0.1), (5, 0.1)])
def test_it_holds_the_true_gain_of_other_seeds_and_images(seeds: int, spread: float) -> None:
    """Probit students: right where ability + image + seed + noise > 0, so that the true gain is a difference of two
    normal probabilities. Of 300 draws the share has a standard error of 1.3 points,
    of which this allows three below 95 %."""
    rng, held, draws, images = np.random.default_rng(0), 0, 300, 200
    total = math.sqrt(1 + 1 + spread**2)
    truth = ndtr(0.9 / total) - ndtr(0.8 / total)
    for draw in range(draws):
        hard_N1 = rng.normal(0, 1, (images, 1))
        alone, taught = (
            rng.random((images, seeds)) < ndtr(ability + hard_N1 + rng.normal(0, spread, (1, seeds)))
            for ability in (0.8, 0.9)
        )
        (found,) = intervals([taught.astype(float) - alone], resamples=400, seed=draw)
        held += found.low <= truth <= found.high
    assert held / draws >= 0.91


def test_a_row_a_setting_with_accuracy_and_paired_gain(make_grid: Maker) -> None:
    labels = {"test": [0] * 10}
    grid = make_grid(seeds=[0, 1])
    prepare_data(grid, classes=2, **labels)
    right = {("baseline", 0): 6, ("baseline", 1): 7, ("distilled", 0): 8, ("distilled", 1): 8}
    for (mode, seed), count in right.items():
        predicted = [0] * count + [1] * (10 - count)
        predicts(grid, grid.one(mode=mode, seed=seed), {"test": logits_for(predicted, 2)}, labels)
    loaded = load_grid(grid.storage)
    alone, taught = with_image_noise(loaded, outcomes(loaded)).to_dicts()
    assert (alone["mode"], alone["accuracy_mean_percent"], alone["accuracy_n"]) == ("baseline", pytest.approx(65.0), 2)
    assert (alone["gain_mean_points"], alone["images"]) == (None, 10)
    assert (taught["mode"], taught["accuracy_mean_percent"]) == ("distilled", pytest.approx(80.0))
    assert (taught["gain_mean_points"], taught["gain_n"]) == (pytest.approx(15.0), 2)
    assert taught["gain_seeds_error_points"] == pytest.approx(5.0)  # of 20 and 10: their sd / sqrt(2)
    assert taught["gain_low_points"] < 15 < taught["gain_high_points"]
