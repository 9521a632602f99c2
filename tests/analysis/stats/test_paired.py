from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.stats import MeanWithInterval, effect, paired_gains, summarize

percents = st.floats(-100, 100, allow_nan=False)


@settings(deadline=None)
@given(values=st.lists(percents, min_size=2, max_size=20), confidence=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_is_students(values: list[float], confidence: float) -> None:
    assume(np.std(values) > 1e-6)
    summary = summarize(values, confidence=confidence)
    low, high = stats.t.interval(confidence, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert summary.std == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert (summary.low, summary.high) == pytest.approx((low, high), rel=1e-7, abs=1e-7)


def test_two_values_by_hand() -> None:
    # Student's t at 97.5 % with one degree of freedom is tan(0.475 pi), Cauchy's.
    summary = summarize([1.0, 3.0])
    half = math.tan(0.475 * math.pi)
    assert (summary.n, summary.mean) == (2, 2.0)
    assert summary.std == pytest.approx(math.sqrt(2))
    assert (summary.low, summary.high) == pytest.approx((2 - half, 2 + half))
    assert half == pytest.approx(12.7062, abs=1e-4)


def test_three_values_by_hand() -> None:
    # With two degrees of freedom it has a closed form: 4.3027 standard errors.
    t = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    summary = summarize([1.0, 2.0, 3.0])
    assert t == pytest.approx(4.3027, abs=1e-4)
    assert (summary.n, summary.mean, summary.std) == (3, 2.0, 1.0)
    assert (summary.low, summary.high) == pytest.approx((2 - t / math.sqrt(3), 2 + t / math.sqrt(3)))


def test_a_wider_confidence_gives_a_wider_interval_about_the_same_mean() -> None:
    narrow, wide = summarize([1.0, 2.0, 4.0], confidence=0.5), summarize([1.0, 2.0, 4.0], confidence=0.99)
    bounds = [wide.low, narrow.low, narrow.mean, narrow.high, wide.high]
    assert all(low is not None and high is not None and low < high for low, high in itertools.pairwise(bounds))
    assert summarize([1.0, 2.0, 4.0]) == summarize([1.0, 2.0, 4.0], confidence=0.95)


def test_one_value_has_no_spread_and_no_interval() -> None:
    assert summarize([7.5]) == MeanWithInterval(n=1, mean=7.5, std=None, low=None, high=None)


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert summarize([4.0, 4.0, 4.0]) == MeanWithInterval(n=3, mean=4.0, std=0.0, low=4.0, high=4.0)


def test_no_values_cannot_be_summarized() -> None:
    with pytest.raises(ValueError, match="no values"):
        summarize([])


def test_gains_are_paired_where_both_have_the_seed() -> None:
    distilled = {2: 84.0, 0: 81.0, 7: 50.0}
    baseline = {0: 80.0, 1: 10.0, 2: 80.5}
    assert paired_gains(distilled, baseline) == {0: 1.0, 2: 3.5}
    assert list(paired_gains(distilled, baseline)) == [0, 2]


def test_no_shared_seed_gives_no_gain() -> None:
    assert paired_gains({0: 1.0}, {1: 1.0}) == {}
    assert paired_gains({}, {1: 1.0}) == {}


@settings(deadline=None)
@given(
    baseline=st.dictionaries(st.integers(0, 9), percents),
    distilled=st.dictionaries(st.integers(0, 9), percents),
)
def test_swapping_the_modes_turns_every_gain_round(baseline: dict[int, float], distilled: dict[int, float]) -> None:
    there, back = paired_gains(distilled, baseline), paired_gains(baseline, distilled)
    assert there == {seed: -gain for seed, gain in back.items()}


@pytest.mark.parametrize(
    ("mean", "p", "answer"),
    [
        (2.0, 0.049, "gain"),
        (-2.0, 0.049, "negative transfer"),
        (2.0, 0.05, "unclear"),
        (-2.0, 1.0, "unclear"),
        (2.0, None, "unclear"),
        (None, None, "unclear"),
    ],
)
def test_the_effect_stands_on_the_corrected_p(mean: float | None, p: float | None, answer: str) -> None:
    assert effect(mean, p) == answer
