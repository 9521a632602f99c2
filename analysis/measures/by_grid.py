"""What became of each of several grids: a row a grid."""

from __future__ import annotations

import polars as pl

from analysis.measures.costs import device_hours
from analysis.read.grids import Grids

GRIDS_SCHEMA: dict[str, type[pl.DataType]] = {
    "grid": pl.String,
    "dataset": pl.String,
    "done": pl.Int64,
    "planned": pl.Int64,
    "failed": pl.Int64,
    "running": pl.Int64,
    "gains": pl.Int64,
    "gain": pl.Int64,
    "negative_transfer": pl.Int64,
    "gain_mean_points": pl.Float64,
    "device_hours": pl.Float64,
}


def by_grid(grids: Grids, frame: pl.DataFrame) -> pl.DataFrame:
    """One row a grid. frame: of `gains`.

    done, failed and running: of its planned teachers and cells; gains: rows of `gains`, of which so many are a
    significant gain or negative transfer; gain_mean_points: their mean; device_hours: of all its stages, those that it
    shares with other grids included.
    """
    status = pl.col("status")
    counts = grids.cells.group_by("grid", maintain_order=True).agg(
        done=(status == "done").sum(),
        planned=pl.len(),
        failed=(status == "failed").sum(),
        running=(status == "running").sum(),
    )
    effects = frame.group_by("grid").agg(
        gains=pl.col("gain_mean_points").count(),
        gain=(pl.col("effect") == "gain").sum(),
        negative_transfer=(pl.col("effect") == "negative transfer").sum(),
        gain_mean_points=pl.col("gain_mean_points").mean(),
    )
    data = pl.DataFrame(
        [(name, str(spec["dataset"]["name"])) for name, spec in grids.specs.items()],
        schema={name: GRIDS_SCHEMA[name] for name in ("grid", "dataset")},
        orient="row",
    )
    hours = grids.stages.group_by("grid").agg(device_hours=device_hours())
    found = counts
    for other in (data, effects, hours):
        found = found.join(other, on="grid", how="left", maintain_order="left")
    filled = found.with_columns(pl.col("gains", "gain", "negative_transfer").fill_null(0))
    return filled.select(pl.col(name).cast(kind) for name, kind in GRIDS_SCHEMA.items())
