"""The moderated paired t: gains judged by a spread that the trainings of a student, and the students of a grid, share.

Three seeds give a paired t-test two degrees of freedom, and so hardly any power. Here a student is what a gene is in
G. K. Smyth, "Linear models and empirical Bayes methods for assessing differential expression in microarray
experiments", Statistical Applications in Genetics and Molecular Biology 3 (2004), and its program limma: a linear model
with several contrasts, one residual variance, and a prior for that from all of them.

1. A student's accuracies y[a, s], in percent, of arm a (alone, or distilled from a teacher by a setting), seed s, are
   mu + arm[a] + seed[s] + error. The residual variance v of that layout has d degrees of freedom: (arms - 1)(seeds - 1)
   where every run is there, and else the number of runs minus the rank of the layout. A gain is a difference of two
   arms, so a pair's variance of gains is 2 v. What the pairs of a student share is its baseline: the layout has those
   runs once, and with them the correlation of 1/2 that they give to the gains.
2. Of G students, e_g = log v_g - psi(d_g / 2) + log(d_g / 2), with the mean e. The prior's degrees of freedom d0 and
   variance s0^2 solve psi'(d0 / 2) = mean of ((e_g - e)^2 G / (G - 1) - psi'(d_g / 2)) and log s0^2 = e + psi(d0 / 2) -
   log(d0 / 2). Where that mean is not above 0, students differ by no more than chance: d0 is infinite, s0^2 = exp(e)
   (section 6.2).
3. v becomes (d0 s0^2 + d v) / (d0 + d), with d0 + d degrees of freedom, and at most the sum of all d_g.

Two things are more careful than limma, which has thousands of genes where a grid has some students. d0 from few of them
is too often infinite, so 1 / d0 + CAUTION / (G - 1) takes the place of 1 / d0. And a pair whose own gains spread wider
than 2 v is judged by its own variance: an arm may be noisier than the others of its student. Shrinking the variance of
each pair's own gains by formulas 2 and 3 alone takes pairs that share a baseline for independent ones and trusts d0.
Six pairs of pure noise with three seeds then claim a gain in 6 % of grids where students spread alike and in 12 % where
they do not; as it is here, in 4 % (`python -m tests.benchmarks.significance power`; docs/statistics.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import digamma, polygamma, stdtr, stdtrit

from analysis.stats.paired import CONFIDENCE, paired_gains, show_spread

CAUTION = 3.0
FEWEST_STUDENTS = 3  # of whose variances a prior is estimated
FEWEST_DF = 2  # of a variance that takes part in that: with one, its logarithm says next to nothing
NOTHING = 1e-12  # points squared: what rounding leaves of a variance of 0


@dataclass(frozen=True)
class Spread:
    """An estimate of a variance, in points squared, and its degrees of freedom, which may be infinite."""

    variance: float
    df: float


@dataclass(frozen=True)
class ModeratedGain:
    """The mean of a pair's n gains in points, with the spread of a single gain that it is judged by."""

    n: int
    mean: float
    spread: Spread | None
    """None for fewer than two gains, and where neither they nor their student show any."""

    @property
    def p(self) -> float | None:
        """Two-sided p of the mean gain being 0: t = mean / sqrt(variance / n)."""
        if self.spread is None:
            return None
        return 2 * float(stdtr(self.spread.df, -abs(self.mean) / math.sqrt(self.spread.variance / self.n)))


def interval_of(mean: float, n: int, spread: Spread, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided t interval of the mean of n gains in points, of one pair alone: not corrected for there being more."""
    half = float(stdtrit(spread.df, 0.5 + confidence / 2)) * math.sqrt(spread.variance / n)
    return mean - half, mean + half


@dataclass(frozen=True)
class Arms:
    """The accuracies of one student in percent, by seed."""

    baseline: Mapping[int, float]
    distilled: Sequence[Mapping[int, float]]


def moderated_gains(students: Sequence[Arms]) -> list[list[ModeratedGain | None]]:
    """Of each student of a grid, its pairs' gains in order; None where no seed has both runs. The numbers of seeds may
    differ: a pair's gain is the mean over the seeds that it has both ways."""
    spreads = [residual_spread([arms.baseline, *arms.distilled]) for arms in students]
    known = [spread for spread in spreads if spread is not None]
    before = careful_prior(known)
    most = sum(spread.df for spread in known)
    found = []
    for arms, spread in zip(students, spreads, strict=True):
        shared = None
        if spread is not None and spread.variance > 0:
            shared = spread if before is None else moderate(spread, before, most=most)
        found.append([_judged([*paired_gains(dict(d), dict(arms.baseline)).values()], shared) for d in arms.distilled])
    return found


def _judged(gains: list[float], shared: Spread | None) -> ModeratedGain | None:
    """shared: the spread of one run of the student."""
    if not gains:
        return None
    mean = math.fsum(gains) / len(gains)
    if len(gains) == 1:
        return ModeratedGain(1, mean, None)
    own = math.fsum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1) if show_spread(gains) else 0.0
    if shared is None:
        return ModeratedGain(len(gains), mean, Spread(own, len(gains) - 1) if own > NOTHING else None)
    return ModeratedGain(len(gains), mean, Spread(max(own, 2 * shared.variance), shared.df))


def residual_spread(arms: Sequence[Mapping[int, float]]) -> Spread | None:
    """Of one run, what arms and seeds leave unexplained, by least squares; None where nothing is left to estimate it.
    With two arms of the same seeds, twice the variance is that of their paired differences."""
    there = [runs for runs in arms if runs]
    if not there:
        return None
    place = {seed: i for i, seed in enumerate(sorted({seed for runs in there for seed in runs}))}
    # Less the mean of its arm, a run stands on seeds alone (Frisch and Waugh): few columns, however many the settings.
    layout, values = [], []
    for runs in there:
        seeds_RS = np.eye(len(place))[[place[seed] for seed in runs]]
        values_R = np.array([*runs.values()])
        layout.append(seeds_RS - seeds_RS.mean(axis=0))
        values.append(values_R - values_R.mean())
    all_RS, all_R = np.concatenate(layout), np.concatenate(values)
    fitted_S, _, rank, _ = np.linalg.lstsq(all_RS, all_R, rcond=None)
    df = len(all_R) - len(there) - int(rank)
    if df == 0:
        return None
    variance = float(np.sum((all_R - all_RS @ fitted_S) ** 2)) / df
    return Spread(variance if variance > NOTHING else 0.0, df)


def prior(spreads: Sequence[Spread]) -> Spread | None:
    """Smyth's d0 and s0^2 (formula 2 above). None for fewer than two variances. One of 0, as small test splits give,
    has no logarithm and takes no part, which leaves s0^2 larger, if anything."""
    known = [spread for spread in spreads if spread.variance > 0]
    count = len(known)
    if count < 2:
        return None
    half = np.array([spread.df / 2 for spread in known])
    e = np.log([spread.variance for spread in known]) - digamma(half) + np.log(half)
    excess = float(np.mean((e - e.mean()) ** 2 * count / (count - 1) - polygamma(1, half)))
    if excess <= 0:
        return Spread(math.exp(e.mean()), math.inf)
    at = trigamma_inverse(excess)
    return Spread(math.exp(e.mean() + digamma(at) - math.log(at)), 2 * at)


def careful_prior(spreads: Sequence[Spread]) -> Spread | None:
    """`prior`, with d0 no larger than so many students can tell; None for fewer than FEWEST_STUDENTS."""
    known = [spread for spread in spreads if spread.variance > 0 and spread.df >= FEWEST_DF]
    found = prior(known)
    if found is None or len(known) < FEWEST_STUDENTS:
        return None
    return replace(found, df=1 / (1 / found.df + CAUTION / (len(known) - 1)))


def moderate(own: Spread, before: Spread, *, most: float = math.inf) -> Spread:
    """A variance shrunk towards the prior one (formula 3 above). most: degrees of freedom of all variances together."""
    if math.isinf(before.df):
        return Spread(before.variance, most)
    df = before.df + own.df
    return Spread((before.df * before.variance + own.df * own.variance) / df, min(df, most))


def trigamma_inverse(y: float) -> float:
    """x > 0 with psi'(x) = y, by Newton's method on 1 / psi', which is convex and nearly linear (Smyth's appendix), so
    that the steps from 0.5 + 1 / y go one way. Raises ValueError unless 0 < y < infinity."""
    if not 0 < y < math.inf:
        raise ValueError(f"the trigamma function takes every value above 0 and no other: not {y}")
    # Beyond these the first terms of psi' are all that floats can hold.
    if y > 1e7:
        return 1 / math.sqrt(y)
    if y < 1e-6:
        return 1 / y
    x = 0.5 + 1 / y
    for _ in range(50):
        at = float(polygamma(1, x))
        step = at * (1 - at / y) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-10:
            break
    return x
