"""The moderated paired t against its formula in float64, ordinary least squares, and its limits."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, special, stats

from analysis.stats.moderated import (
    CAUTION,
    Arms,
    ModeratedGain,
    Spread,
    careful_prior,
    interval_of,
    moderate,
    moderated_gains,
    prior,
    residual_spread,
    trigamma_inverse,
)

SHAPE = st.tuples(st.integers(1, 4), st.integers(2, 6))


def runs_of(seed: int, arms: int, seeds: int) -> NDArray[np.float64]:
    return 80 + np.random.default_rng(seed).normal(size=(arms, seeds))


def as_arms(runs_AS: NDArray[np.float64]) -> Arms:
    alone, *taught = [dict(enumerate(runs.tolist())) for runs in runs_AS]
    return Arms(alone, taught)


def judged(gain: ModeratedGain | None) -> ModeratedGain:
    assert gain is not None
    return gain


def spread_of(gain: ModeratedGain | None) -> Spread:
    spread = judged(gain).spread
    assert spread is not None
    return spread


# The residual spread of a student


@settings(deadline=None)
@given(shape=SHAPE, seed=st.integers(0, 99))
def test_whole_layouts_are_the_randomised_block_design(shape: tuple[int, int], seed: int) -> None:
    arms, seeds = shape[0] + 1, shape[1]
    runs_AS = runs_of(seed, arms, seeds)
    rest_AS = runs_AS - runs_AS.mean(1, keepdims=True) - runs_AS.mean(0, keepdims=True) + runs_AS.mean()
    found = residual_spread([dict(enumerate(runs.tolist())) for runs in runs_AS])
    assert found is not None
    assert found.df == (arms - 1) * (seeds - 1)
    assert found.variance == pytest.approx((rest_AS**2).sum() / found.df)


def test_two_arms_are_the_paired_t_test() -> None:
    runs_AS = runs_of(1, 2, 5)
    ((gain,),) = moderated_gains([as_arms(runs_AS)])
    expected = stats.ttest_rel(runs_AS[1], runs_AS[0])
    assert spread_of(gain).df == 4
    assert judged(gain).p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert interval_of(judged(gain).mean, 5, spread_of(gain)) == pytest.approx((interval.low, interval.high))


def test_several_arms_are_a_contrast_by_ordinary_least_squares() -> None:
    """mu, a column an arm but the first, a column a seed but the first: the t of an arm's coefficient, where the pair's
    own gains do not spread wider than the residuals of all."""
    arms, seeds = 4, 5
    runs_AS = runs_of(7, arms, seeds)
    design_RX = np.array(
        [
            [1.0, *(float(a == i) for i in range(1, arms)), *(float(s == i) for i in range(1, seeds))]
            for a in range(arms)
            for s in range(seeds)
        ]
    )
    beta_X, rss, *_ = np.linalg.lstsq(design_RX, runs_AS.ravel(), rcond=None)
    df = arms * seeds - design_RX.shape[1]
    covariance_XX = rss[0] / df * np.linalg.inv(design_RX.T @ design_RX)
    (gains,) = moderated_gains([as_arms(runs_AS)])
    narrower = 0
    for arm, gain in enumerate(gains, start=1):
        own = float(np.var(runs_AS[arm] - runs_AS[0], ddof=1))
        assert judged(gain).mean == pytest.approx(beta_X[arm])
        assert spread_of(gain).df == df
        if own <= 2 * rss[0] / df:
            narrower += 1
            t = beta_X[arm] / math.sqrt(covariance_XX[arm, arm])
            assert judged(gain).p == pytest.approx(2 * stats.t.sf(abs(t), df))
        else:
            assert spread_of(gain).variance == pytest.approx(own)
    assert 0 < narrower < 3, "both kinds are there"


def test_missing_runs_leave_the_rank_of_the_layout() -> None:
    # Seeds 0 to 2 alone; the first way has them all, the second 0 and 1, and a seed that stands nowhere else.
    arms = [{0: 80.0, 1: 81.0, 2: 79.0}, {0: 82.0, 1: 82.5, 2: 80.0}, {0: 81.0, 1: 83.0, 9: 70.0}]
    found = residual_spread(arms)
    assert found is not None
    assert found.df == 9 - (3 + 4 - 1)
    ((first, second),) = moderated_gains([Arms(arms[0], arms[1:])])
    assert [judged(first).n, judged(second).n] == [3, 2]
    assert [judged(first).mean, judged(second).mean] == pytest.approx([1.5, 1.5])


# The prior


@given(y=st.floats(1e-9, 1e12))
def test_the_inverse_of_trigamma_inverts_it(y: float) -> None:
    assert special.polygamma(1, trigamma_inverse(y)) == pytest.approx(y, rel=2e-6)


def test_the_inverse_of_trigamma_where_it_is_known() -> None:
    assert trigamma_inverse(math.pi**2 / 6) == pytest.approx(1)  # psi'(1)
    assert trigamma_inverse(math.pi**2 / 2) == pytest.approx(0.5)  # psi'(1/2)


@pytest.mark.parametrize("y", [0.0, -1.0, math.inf, math.nan])
def test_trigamma_takes_no_value_that_is_not_above_0(y: float) -> None:
    with pytest.raises(ValueError, match="every value above 0"):
        trigamma_inverse(y)


def smyth(spreads: list[Spread]) -> tuple[float, float]:
    """d0 and s0^2, solved by bisection instead of Newton's method: Smyth (2004), section 6.2."""
    e = [math.log(s.variance) - special.digamma(s.df / 2) + math.log(s.df / 2) for s in spreads]
    mean, count = math.fsum(e) / len(e), len(e)
    excess = [
        (x - mean) ** 2 * count / (count - 1) - special.polygamma(1, s.df / 2) for x, s in zip(e, spreads, strict=True)
    ]
    right = math.fsum(excess) / count
    if right <= 0:
        return math.inf, math.exp(mean)
    half = optimize.brentq(lambda x: special.polygamma(1, x) - right, 1e-6, 1e9, xtol=1e-14)
    return 2 * half, math.exp(mean + special.digamma(half) - math.log(half))


@settings(deadline=None)
@given(spreads=st.lists(st.tuples(st.floats(0.01, 100), st.integers(1, 20)).map(lambda of: Spread(*of)), min_size=2))
def test_the_prior_is_smyths(spreads: list[Spread]) -> None:
    found, (df, variance) = prior(spreads), smyth(spreads)
    assert found is not None
    if math.isinf(df) or df > 1e5:
        assert found.df > 1e4
    else:
        assert (found.df, found.variance) == pytest.approx((df, variance), rel=1e-5)


def test_the_prior_of_many_variances_is_the_one_that_they_were_drawn_from() -> None:
    generator = np.random.default_rng(0)
    variances = 2.0 * 5 / generator.chisquare(5, 20_000) * generator.chisquare(4, 20_000) / 4
    found = prior([Spread(float(variance), 4) for variance in variances])
    assert found is not None
    assert found.df == pytest.approx(5, rel=0.05)
    assert found.variance == pytest.approx(2.0, rel=0.03)


def test_variances_alike_have_a_prior_without_end() -> None:
    found = prior([Spread(3.0, 4)] * 5)
    assert found is not None
    assert math.isinf(found.df)
    assert found.variance == pytest.approx(3.0 * math.exp(math.log(2) - special.digamma(2)))


def test_a_variance_of_0_takes_no_part() -> None:
    known = [Spread(1.0, 4), Spread(3.0, 4), Spread(90.0, 4)]
    assert prior([*known, Spread(0.0, 4)]) == prior(known)
    assert prior([Spread(0.0, 4)] * 3) is None
    assert prior(known[:1]) is None


def test_few_students_bound_what_the_prior_is_worth() -> None:
    alike = [Spread(3.0, 4)] * 4
    found = careful_prior(alike)
    assert found is not None
    assert found.df == pytest.approx(3 / CAUTION)
    assert careful_prior(alike[:2]) is None
    assert careful_prior([*alike[:2], Spread(3.0, 1)]) is None, "one degree of freedom says nothing of spreads"


# Shrinking


def test_shrinking_goes_from_the_own_variance_to_the_prior_one() -> None:
    own = Spread(8.0, 2)
    assert astuple(moderate(own, Spread(2.0, 1e-9))) == pytest.approx((8.0, 2.0))  # d0 -> 0: as it was
    assert moderate(own, Spread(2.0, 4)) == Spread((4 * 2 + 2 * 8) / 6, 6)
    assert moderate(own, Spread(2.0, 1e12)).variance == pytest.approx(2.0)
    pooled = moderate(own, Spread(2.0, math.inf))
    assert pooled == Spread(2.0, math.inf)
    # The mean of 4 gains of a known variance: a z test.
    assert ModeratedGain(4, 1.5, pooled).p == pytest.approx(2 * stats.norm.sf(1.5 / math.sqrt(2.0 / 4)))
    assert moderate(own, Spread(2.0, math.inf), most=10) == Spread(2.0, 10)


def test_a_grid_is_shrunk_as_the_formulas_say() -> None:
    students = [runs_of(seed, 3, 4) for seed in range(4)]
    spreads = []
    for runs_AS in students:
        rest_AS = runs_AS - runs_AS.mean(1, keepdims=True) - runs_AS.mean(0, keepdims=True) + runs_AS.mean()
        spreads.append(Spread(float((rest_AS**2).sum() / 6), 6))
    df, variance = smyth(spreads)
    df = 1 / ((0 if math.isinf(df) else 1 / df) + 3 / 3)
    for runs_AS, spread, gains in zip(students, spreads, moderated_gains([*map(as_arms, students)]), strict=True):
        shared = 2 * (df * variance + 6 * spread.variance) / (df + 6)
        for taught, gain in zip(runs_AS[1:], gains, strict=True):
            own = float(np.var(taught - runs_AS[0], ddof=1))
            assert spread_of(gain).variance == pytest.approx(max(own, shared))
            assert spread_of(gain).df == pytest.approx(df + 6)
            t = judged(gain).mean / math.sqrt(max(own, shared) / 4)
            assert judged(gain).p == pytest.approx(2 * stats.t.sf(abs(t), df + 6))


def test_what_cannot_be_judged_has_no_spread() -> None:
    alone = {0: 80.0, 1: 81.0, 2: 82.0}
    equal = {seed: value + 1 for seed, value in alone.items()}
    ((gain,),) = moderated_gains([Arms(alone, [equal])])
    assert (judged(gain).mean, judged(gain).spread, judged(gain).p) == (1.0, None, None)
    ((gain,),) = moderated_gains([Arms({0: 80.0}, [{0: 82.0}])])
    assert (judged(gain).mean, judged(gain).spread) == (2.0, None)
    assert moderated_gains([Arms(alone, [{}]), Arms({}, [equal])]) == [[None], [None]]
    assert moderated_gains([]) == []


def test_equal_gains_are_judged_by_what_their_student_shows_elsewhere() -> None:
    alone = {0: 80.0, 1: 81.0, 2: 82.0}
    equal, other = {0: 81.0, 1: 82.0, 2: 83.0}, {0: 80.0, 1: 82.0, 2: 82.0}
    ((first, second),) = moderated_gains([Arms(alone, [equal, other])])
    # Residuals of the layout: (1/9, -2/9, 1/9) twice and (-2/9, 4/9, -2/9), 36/81 in all, with 4 degrees of freedom.
    assert astuple(spread_of(first)) == pytest.approx((2 * 36 / 81 / 4, 4))
    assert spread_of(second).variance == pytest.approx(1 / 3), "its own is wider"


# What sharing a baseline does


def test_pairs_that_share_a_baseline_have_correlated_variances_of_gains_and_a_layout_has_not() -> None:
    """Gains of two ways correlate by 1/2, and so their variances by 1/4: pooled they have 2 (n - 1) / (1 + 1/4) degrees
    of freedom in truth. That of the layout has its 2 (n - 1): var(v) = 2 sigma^4 / df."""
    generator, seeds = np.random.default_rng(3), 4
    runs_RAS = generator.normal(size=(20_000, 3, seeds))
    own_RP = np.var(runs_RAS[:, 1:] - runs_RAS[:, :1], axis=2, ddof=1)
    assert np.corrcoef(own_RP.T)[0, 1] == pytest.approx(1 / 4, abs=0.03)
    assert 2 * 2**2 / np.var(own_RP.mean(1)) == pytest.approx(2 * (seeds - 1) / 1.25, rel=0.05)
    few = [residual_spread([dict(enumerate(runs)) for runs in runs_AS]) for runs_AS in runs_RAS[:4000].tolist()]
    variances = np.array([spread.variance for spread in few if spread is not None])
    assert variances.mean() == pytest.approx(1, rel=0.03)
    assert 2 / variances.var() == pytest.approx(2 * (seeds - 1), rel=0.1)


@pytest.mark.parametrize(("students", "ways"), [(1, 2), (3, 2), (6, 1), (1, 12)])
def test_the_prior_of_shared_baselines_claims_nothing_of_noise(students: int, ways: int) -> None:
    """The smallest of m p values is below 0.05 / m in at most 5 % of grids of noise, of students that spread alike."""
    generator, grids, claims = np.random.default_rng(5), 600, 0
    for _ in range(grids):
        found = moderated_gains([as_arms(generator.normal(size=(ways + 1, 3))) for _ in range(students)])
        least = min(gain.p for of in found for gain in of if gain is not None and gain.p is not None)
        claims += least < 0.05 / (students * ways)
    assert claims / grids <= 0.05
