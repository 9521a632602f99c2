"""The bootstrap, the interquartile mean and the probability of improvement."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.stats import FigureWithInterval, bootstrap_intervals, interquartile_mean, probability_of_improvement


def bootstrap_interval(values: Sequence[float], **how: Any) -> tuple[float, float] | None:
    (found,) = bootstrap_intervals([values], **how)
    return found


def test_many_intervals_are_those_of_each_alone() -> None:
    many = [[2.0, -1.0, 7.0], [3.0], [4.0, 4.5], [], [1.0, 2.0, 4.0, 8.0], [0.0, 0.5, 9.0]] * 100
    assert bootstrap_intervals(many) == [bootstrap_interval(values) for values in many]


percents = st.integers(0, 1000).map(lambda tenths: tenths / 10)
tasks = st.lists(st.lists(percents, min_size=1, max_size=5), min_size=1, max_size=6)

X, Y = [[80.0, 82.0, 84.0], [90.0, 91.0, 92.0]], [[79.0, 82.0, 83.0], [91.0, 92.0, 95.0]]


# One pair


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_bootstrap_interval_is_scipys_of_the_same_draws(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).normal(size=n)
    expected = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=1000,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    found = bootstrap_interval(values.tolist(), confidence=confidence, resamples=1000, seed=3)
    assert found == pytest.approx(tuple(expected), abs=1e-12)


def test_the_bootstrap_interval_of_three_values_is_their_range() -> None:
    assert bootstrap_interval([2.0, -1.0, 7.0]) == (-1.0, 7.0)


def test_the_bootstrap_interval_of_few_or_equal_values() -> None:
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([3.0]) is None
    assert bootstrap_interval([4.0, 4.0]) == (4.0, 4.0)


@given(values=st.lists(percents, min_size=2, max_size=10), shift=percents)
def test_the_bootstrap_interval_mirrors_and_shifts(values: list[float], shift: float) -> None:
    interval = bootstrap_interval(values)
    assert interval is not None
    low, high = interval
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert bootstrap_interval([-value for value in values]) == pytest.approx((-high, -low), abs=1e-9)
    assert bootstrap_interval([value + shift for value in values]) == pytest.approx((low + shift, high + shift))


def test_the_seed_alone_decides_the_draws() -> None:
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    assert bootstrap_interval(values) == bootstrap_interval(values, seed=0)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    assert probability_of_improvement(X, Y, seed=4) == probability_of_improvement(X, Y, seed=4)


# Over all pairs


@given(runs=tasks)
def test_the_interquartile_mean_is_scipys_trimmed_mean(runs: list[list[float]]) -> None:
    found = interquartile_mean(runs, resamples=10)
    pooled = list(itertools.chain(*runs))
    assert found.value == pytest.approx(stats.trim_mean(pooled, 0.25))
    assert (found.tasks, found.runs) == (len(runs), len(pooled))
    assert (found.low is None) == (min(map(len, runs)) == 1)


def test_an_interquartile_mean_by_hand() -> None:
    # Of 1 2 3 4 | 10 20 30 40 the middle half is 3 4 10 20.
    assert interquartile_mean([[4.0, 20.0, 1.0, 30.0], [40.0, 2.0, 10.0, 3.0]]).value == 9.25
    assert interquartile_mean([[5.0]]) == FigureWithInterval(5.0, None, None, tasks=1, runs=1)
    assert interquartile_mean([[6.0, 6.0], [6.0, 6.0]]) == FigureWithInterval(6.0, 6.0, 6.0, tasks=2, runs=4)


def exact_interval(values: list[float]) -> tuple[float, float]:
    """The percentiles of equally likely outcomes."""
    low, high = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def test_the_interquartile_means_interval_resamples_within_each_task() -> None:
    runs = [[1.0, 2.0], [10.0, 40.0]]
    outcomes = [
        float(stats.trim_mean([*first, *second], 0.25))
        for first in itertools.product(runs[0], repeat=2)
        for second in itertools.product(runs[1], repeat=2)
    ]
    found = interquartile_mean(runs)
    assert (found.low, found.high) == pytest.approx(exact_interval(outcomes))


def test_tasks_together_are_drawn_together() -> None:
    # The same three runs three times over: their interval is that of one task, and not the narrower one of three.
    runs = [1.0, 2.0, 3.0]
    apart = interquartile_mean([runs] * 3)
    together = interquartile_mean([runs] * 3, together=["S"] * 3)
    assert together.value == apart.value == 2.0
    assert (together.low, together.high) == (1.0, 3.0)
    assert apart.low is not None
    assert apart.high is not None
    assert 1.0 < apart.low < apart.high < 3.0


@given(runs=st.lists(st.tuples(*[st.lists(percents, min_size=1, max_size=5)] * 2), min_size=1, max_size=5))
def test_the_probability_of_improvement_is_mann_and_whitneys_u(runs: list[tuple[list[float], list[float]]]) -> None:
    x, y = [pair[0] for pair in runs], [pair[1] for pair in runs]
    shares = [stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in runs]
    found = probability_of_improvement(x, y, resamples=10)
    assert found.value == pytest.approx(np.mean(shares))
    assert (found.tasks, found.runs) == (len(runs), sum(len(a) + len(b) for a, b in runs))
    assert probability_of_improvement(y, x, resamples=10).value == pytest.approx(1 - found.value)
    assert probability_of_improvement(x, x, resamples=10).value == 0.5


def test_a_probability_of_improvement_by_hand() -> None:
    # 80 beats 79; 82 beats 79 and ties with 82; 84 beats all: 5.5 of 9. 90 beats none, 91 ties once, 92 beats 91 and
    # ties with 92: 2 of 9.
    assert probability_of_improvement(X, Y).value == pytest.approx((5.5 + 2) / 18)
    assert probability_of_improvement([[2.0]], [[1.0]]) == FigureWithInterval(1.0, None, None, tasks=1, runs=2)
    always = probability_of_improvement([[2.0, 3.0]], [[0.0, 1.0]])
    assert (always.value, always.low, always.high) == (1.0, 1.0, 1.0)
    equal = probability_of_improvement([[2.0, 2.0]], [[2.0, 2.0]])
    assert (equal.value, equal.low, equal.high) == (0.5, 0.5, 0.5)


def test_the_improvements_interval_resamples_both_sides_within_each_task() -> None:
    x, y = [[1.0, 4.0], [5.0, 5.0]], [[0.0, 2.0], [3.0, 7.0]]

    def shares(a: list[float], b: list[float]) -> list[float]:
        return [
            stats.mannwhitneyu(some, others).statistic / 4
            for some in itertools.product(a, repeat=2)
            for others in itertools.product(b, repeat=2)
        ]

    outcomes = [(one + two) / 2 for one, two in itertools.product(shares(x[0], y[0]), shares(x[1], y[1]))]
    found = probability_of_improvement(x, y)
    assert (found.low, found.high) == pytest.approx(exact_interval(outcomes))


def test_the_improvements_interval_counts_shared_runs_once() -> None:
    x, y = [[1.0] * 3] * 4, [[0.0, 0.5, 2.0]] * 4
    apart, together = (probability_of_improvement(x, y, together=labels) for labels in (None, ["S"] * 4))
    assert apart.value == together.value == pytest.approx(2 / 3)
    # Of one draw of y, which all tasks share, none or all may be below.
    assert (together.low, together.high) == (0.0, 1.0)
    assert apart.low is not None
    assert apart.low > 0.25


@pytest.mark.parametrize("bad", [[], [[1.0], []]])
def test_nothing_is_estimated_from_nothing(bad: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="no task"):
        interquartile_mean(bad)
    with pytest.raises(ValueError, match="no task"):
        probability_of_improvement(bad, bad)


def test_both_sides_have_the_same_tasks() -> None:
    with pytest.raises(ValueError, match="zip"):
        probability_of_improvement([[1.0]], [[1.0], [2.0]])


def test_the_shown_intervals_hardly_depend_on_chance() -> None:
    # Three runs a task give lumpy distributions, whose bounds few resamples miss.
    runs = [[83.3, 84.4, 76.9], [93.4, 95.4, 93.1], [93.2, 90.8, 90.5]] * 2
    labels = ["a", "b", "c"] * 2
    found = [interquartile_mean(runs, together=labels, seed=seed) for seed in range(4)]
    for bounds in ([one.low for one in found], [one.high for one in found]):
        assert None not in bounds
        assert np.ptp(np.array(bounds, dtype=float)) < 0.2
