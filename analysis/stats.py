"""Statistics of replicates, apart from any table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean of n values with its two-sided t interval; std and interval are None where n is 1."""

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


def summarize(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Summary:
    """Mean, sample standard deviation (n - 1) and Student's t interval of the mean: mean -+ t * std / sqrt(n).

    Raises ValueError for no values at all.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to summarize")
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean, None, None, None)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * std / math.sqrt(n)
    return Summary(n, mean, std, mean - half, mean + half)


def paired_gains(distilled: dict[int, float], baseline: dict[int, float]) -> dict[int, float]:
    """distilled - baseline by seed, for the seeds that have both."""
    return {seed: distilled[seed] - baseline[seed] for seed in sorted(distilled.keys() & baseline.keys())}


def effect(gain: Summary) -> str:
    """'gain' or 'negative transfer' where the interval excludes 0; else 'unclear', for want of an interval too."""
    if gain.low is None or gain.high is None:
        return "unclear"
    if gain.low > 0:
        return "gain"
    return "negative transfer" if gain.high < 0 else "unclear"
