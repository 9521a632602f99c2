"""What all pairs of a grid say together: a row a setting, as a frame."""

from __future__ import annotations

from typing import Any

import polars as pl

from analysis.measures.pairs import POINT, Pair, pairs
from analysis.read.grids import Grid
from analysis.read.schema import AXES
from analysis.stats import FigureWithInterval, interquartile_mean, probability_of_improvement

OVERALL_SCHEMA: dict[str, type[pl.DataType]] = {
    **AXES,
    "pairs": pl.Int64,
    "baseline_runs": pl.Int64,
    "distilled_runs": pl.Int64,
    "gain_runs": pl.Int64,
    "baseline_iqm_percent": pl.Float64,
    "baseline_iqm_percent_low": pl.Float64,
    "baseline_iqm_percent_high": pl.Float64,
    "distilled_iqm_percent": pl.Float64,
    "distilled_iqm_percent_low": pl.Float64,
    "distilled_iqm_percent_high": pl.Float64,
    "gain_iqm_points": pl.Float64,
    "gain_iqm_points_low": pl.Float64,
    "gain_iqm_points_high": pl.Float64,
    "improvement": pl.Float64,
    "improvement_low": pl.Float64,
    "improvement_high": pl.Float64,
}


def overall(grid: Grid, *, point: str = POINT) -> pl.DataFrame:
    """One row a setting (one row where nothing is crossed), over its pairs of teacher and student that have a run both
    ways. Interquartile means in percent, that of the gain in points and over runs paired by seed; improvement: the
    probability that a distilled run beats one of the student alone. 95 % stratified bootstrap intervals, null where a
    pair has one run alone.

    Each pair counts its student's baseline, so several teachers weigh it several times; baseline_runs counts each run
    once, and the intervals draw it once for all of its pairs.
    """
    settings: dict[tuple[Any, ...], list[Pair]] = {}
    for pair in pairs(grid, point=point):
        settings.setdefault(tuple(pair.planned[axis] for axis in AXES), []).append(pair)
    rows = [dict(zip(AXES, setting, strict=True)) | _row(members) for setting, members in settings.items()]
    return pl.DataFrame(rows, schema=OVERALL_SCHEMA)


def _row(members: list[Pair]) -> dict[str, Any]:
    both = [pair for pair in members if pair.baseline and pair.distilled]
    if not both:
        return {"pairs": 0, "baseline_runs": 0, "distilled_runs": 0, "gain_runs": 0}
    students = [pair.planned["student"] for pair in both]
    baseline = [list(pair.baseline.values()) for pair in both]
    distilled = [list(pair.distilled.values()) for pair in both]
    paired = [pair for pair in both if pair.gains]
    # Gains stand on the same baselines where student and seeds are the same.
    strata = [(pair.planned["student"], *pair.gains) for pair in paired]
    gain = interquartile_mean([list(pair.gains.values()) for pair in paired], together=strata) if paired else None
    return {
        "pairs": len(both),
        "baseline_runs": sum(len(runs) for runs in dict(zip(students, baseline, strict=True)).values()),
        "distilled_runs": sum(len(runs) for runs in distilled),
        "gain_runs": gain.runs if gain else 0,
        **_shown("baseline_iqm_percent", interquartile_mean(baseline, together=students)),
        **_shown("distilled_iqm_percent", interquartile_mean(distilled)),
        **_shown("gain_iqm_points", gain),
        **_shown("improvement", probability_of_improvement(distilled, baseline, together=students)),
    }


def _shown(name: str, figure: FigureWithInterval | None) -> dict[str, float | None]:
    if figure is None:
        return {}
    return {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
