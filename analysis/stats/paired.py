"""Replicates over seeds: their mean with its t interval, gains paired by seed, and the exact test of one pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
SIGNIFICANT = 0.05  # a corrected p below it
MOST_FLIPPED = 20  # 2^19 sums: some milliseconds


@dataclass(frozen=True)
class MeanWithInterval:
    """Mean of n values with its two-sided t interval; std and interval are None where n is 1."""

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


def summarize(values: Sequence[float], *, confidence: float = CONFIDENCE) -> MeanWithInterval:
    """Mean, sample standard deviation (n - 1) and Student's t interval of the mean: mean -+ t * std / sqrt(n).

    Raises ValueError for no values at all.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to summarize")
    mean = math.fsum(values) / n
    if n == 1:
        return MeanWithInterval(1, mean, None, None, None)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * std / math.sqrt(n)
    return MeanWithInterval(n, mean, std, mean - half, mean + half)


def paired_gains(distilled: dict[int, float], baseline: dict[int, float]) -> dict[int, float]:
    """distilled - baseline by seed, for the seeds that have both; without last bits, in which equal gains differ."""
    return {seed: round(distilled[seed] - baseline[seed], 9) for seed in sorted(distilled.keys() & baseline.keys())}


def show_spread(gains: Sequence[float]) -> bool:
    """Whether there are two gains that differ. Of one, or of equal ones, chance cannot be judged: of a few hundred or
    thousand test images equal gains come by chance, and a t interval of no width would claim certainty."""
    return len(set(gains)) > 1


def effect(mean: float | None, p: float | None) -> str:
    """'gain' or 'negative transfer' where p, corrected, is below SIGNIFICANT; else 'unclear', for want of a p too."""
    if mean is None or p is None or p >= SIGNIFICANT:
        return "unclear"
    return "gain" if mean > 0 else "negative transfer"


def p_sign_flip(gains: Sequence[float]) -> float | None:
    """Two-sided p of the exact permutation test for pairs: the share of the 2^n ways to sign the gains whose |sum| is
    at least the observed one. None for fewer than two gains, or more than MOST_FLIPPED.

    It supposes nothing but that a gain and its negative are equally likely where distilling does nothing. The least p
    is 2 / 2^n: 0.5 for n = 2, 0.25 for 3, 0.125 for 4, 0.0625 for 5. So with fewer than six seeds it cannot fall below
    0.05 however large the gain: p = 0.25 of three seeds is all they can say without the t-test's assumption of normal
    gains, and no sign that there is no gain.
    """
    n = len(gains)
    if not 2 <= n <= MOST_FLIPPED:
        return None
    # The first sign stays: flipping all of them changes no |sum|.
    sums = np.array([gains[0]])
    for gain in gains[1:]:
        sums = np.concatenate([sums + gain, sums - gain])
    slack = 1e-9 * math.fsum(abs(gain) for gain in gains)  # equal sums differ in their last bits
    return float(np.mean(np.abs(sums) >= abs(math.fsum(gains)) - slack))
