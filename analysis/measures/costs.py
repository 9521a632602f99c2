"""What a grid took: device-hours by kind of stage, and what its caches saved."""

from __future__ import annotations

import polars as pl

from analysis.read.grids import Records
from grid.contract.units import HOUR

COSTS_SCHEMA: dict[str, type[pl.DataType]] = {
    "stage": pl.String,
    "done": pl.Int64,
    "planned": pl.Int64,
    "device_hours": pl.Float64,
    "share": pl.Float64,
    "device": pl.String,
}


def costs(records: Records) -> pl.DataFrame:
    """One row a kind of stage, and a total: how many are done of those planned, and the device-hours of training,
    evaluation and inference they took, wherever and whenever they were computed; share: of the total, a fraction."""
    kinds = {"teacher": "teachers", "logits": "teacher logits", "baseline": "baselines", "distilled": "distilled"}
    kind = pl.when(pl.col("kind") == "cell").then(pl.col("mode")).otherwise(pl.col("kind"))
    stages = _stages(records).with_columns(stage=kind).filter(pl.col("stage").is_in([*kinds]))
    total = _sum(stages["device_seconds"])
    rows = []
    for name, group in [*((key, stages.filter(pl.col("stage") == key)) for key in kinds), ("total", stages)]:
        if group.is_empty():
            continue
        done = group.filter(pl.col("status") == "done")
        seconds = _sum(done["device_seconds"])
        rows.append(
            {
                "stage": kinds.get(name, name),
                "done": done.height,
                "planned": group.height,
                "device_hours": seconds / HOUR,
                "share": seconds / total if total else None,
                "device": ", ".join(sorted(done["device"].drop_nulls().unique())) or None,
            }
        )
    return pl.DataFrame(rows, schema=COSTS_SCHEMA)


def _stages(records: Records) -> pl.DataFrame:
    """Each stage once, however many grids share it."""
    return records.stages.unique("stage_id", keep="first", maintain_order=True)


def device_hours() -> pl.Expr:
    return pl.col("device_seconds").filter(pl.col("status") == "done").sum() / HOUR


def _sum(seconds: pl.Series) -> float:
    return float(seconds.sum())


def saved_hours(records: Records) -> float:
    """Device-hours that the cached logits saved at the least: what each was computed with, once more for every further
    cell that reads it."""
    done = _stages(records).filter(pl.col("status") == "done")
    readers = done.filter(pl.col("logits_id").is_not_null()).group_by("logits_id").agg(readers=pl.len())
    logits = done.filter(pl.col("kind") == "logits").join(readers, left_on="stage_id", right_on="logits_id")
    return float((logits["device_seconds"] * (logits["readers"] - 1)).sum()) / HOUR
