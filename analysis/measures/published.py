"""Our gains beside those of the study that a grid repeats."""

from __future__ import annotations

from typing import Any

import polars as pl

from analysis.errors import AnalysisError
from analysis.measures.gains import gains
from analysis.measures.pairs import BEST_TEST, POINT
from analysis.read.grids import Grid
from analysis.read.schema import AXES

INSIDE, OUTSIDE = "inside", "outside"


def compare(grid: Grid) -> pl.DataFrame:
    """One row a published pair and setting of ours: the columns of `gains` at the best test epoch, and with the suffix
    _last at the last epoch; the study's figures as published_...; and `published_gain_is`: inside or outside of our
    interval at the study's protocol. Percent and points.

    Raises AnalysisError where the grid's file states no published figures.
    """
    published = published_figures(grid)
    ours = {point: gains(grid, point=point) for point in (BEST_TEST, POINT)}
    keys = ["teacher", "student", *AXES]
    joined = ours[BEST_TEST].join(ours[POINT], on=keys, how="inner", suffix="_last", nulls_equal=True)
    study = pl.DataFrame(
        [
            {
                "teacher": said["teacher"],
                "student": said["student"],
                "published_baseline_percent": float(said["baseline"]),
                "published_distilled_percent": float(said["distilled"]),
                "published_gain_points": round(said["distilled"] - said["baseline"], 6),
                "published_retention_percent": said.get("retention"),
            }
            for said in published["pairs"]
        ],
        schema={
            "teacher": pl.String,
            "student": pl.String,
            "published_baseline_percent": pl.Float64,
            "published_distilled_percent": pl.Float64,
            "published_gain_points": pl.Float64,
            "published_retention_percent": pl.Float64,
        },
    )
    inside = pl.col("published_gain_points").is_between("gain_low_points", "gain_high_points")
    return study.join(joined, on=["teacher", "student"], how="left", maintain_order="left").with_columns(
        published_gain_is=pl.when(inside).then(pl.lit(INSIDE)).when(~inside).then(pl.lit(OUTSIDE))
    )


def published_figures(grid: Grid) -> dict[str, Any]:
    """What the grid's file states of a study. Raises AnalysisError where it states nothing."""
    published: dict[str, Any] | None = grid.spec.get("published")
    if not published:
        raise AnalysisError(f"grid {grid.name} states no published figures: give it published: in its file")
    if "models" not in published:
        raise AnalysisError(f"grid {grid.name}: its published figures are an older version's; launch it again")
    return published
