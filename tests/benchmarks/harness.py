"""Measure two sides in one run, interleaved and repeated, and report their ratio with its spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """value: the median over the repeats; low and high: the extremes."""

    name: str
    value: float
    unit: str
    low: float
    high: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ratio(
    name: str, unit: str, *, numerator: Callable[[], object], denominator: Callable[[], object], repeats: int
) -> Row:
    """Seconds of one side over seconds of the other, a pair at a time after one unmeasured pair; the order within a
    pair alternates, so that a machine that slows down or speeds up favours neither."""
    numerator()
    denominator()
    ratios = []
    for repeat in range(repeats):
        if repeat % 2:
            below = seconds(denominator)
            above = seconds(numerator)
        else:
            above = seconds(numerator)
            below = seconds(denominator)
        ratios.append(above / below)
    return Row(name, statistics.median(ratios), unit, min(ratios), max(ratios))
