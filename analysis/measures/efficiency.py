"""What each model costs and what it gives for that: a row a model and mode."""

from __future__ import annotations

from typing import Any

import polars as pl

from analysis.measures.gains import baselines, ratio
from analysis.measures.pairs import POINT
from analysis.measures.selection import select
from analysis.read.grids import Grid
from analysis.read.schema import AXES

MIB = 2**20
DEVICE = ["latency_device", "latency_batch"]
TIMES = ["latency_ms", "latency_ms_q1", "latency_ms_q3"]

EFFICIENCY_SCHEMA: dict[str, type[pl.DataType]] = {
    "model": pl.String,
    "mode": pl.String,
    "start": pl.String,
    "teacher": pl.String,
    **AXES,
    "accuracy_percent": pl.Float64,
    "accuracy_n": pl.Int64,
    "val_percent": pl.Float64,
    "retention_percent": pl.Float64,
    "parameters": pl.Int64,
    "size_mib": pl.Float64,
    "macs": pl.Int64,
    "latency_ms": pl.Float64,
    "latency_ms_q1": pl.Float64,
    "latency_ms_q3": pl.Float64,
    "latency_batch": pl.Int64,
    "latency_device": pl.String,
    "throughput": pl.Float64,
    "percent_per_ms": pl.Float64,
    "percent_per_mib_ms": pl.Float64,
}


def efficiency(grid: Grid, frame: pl.DataFrame) -> pl.DataFrame:
    """One row a teacher (mode null), student alone, and student by teacher and setting. frame: of `gains`.

    accuracy_percent: mean top1 over seeds on the test split at the last epoch; val_percent: the same on validation;
    retention_percent: of the teacher's accuracy. latency_ms and its quartiles: medians over the model's records on one
    device, ms per batch of latency_batch images; throughput: images per second at that. percent_per_ms:
    accuracy_percent / latency_ms; percent_per_mib_ms: accuracy_percent / (size_mib * latency_ms).
    """
    costs, timed = _costs(grid), {(row["kind"], row["model"]): row for row in timings(grid).reverse().to_dicts()}
    rows: list[dict[str, Any]] = []

    def add(kind: str, model: str, **facts: Any) -> None:
        time = timed.get((kind, model), {})
        rows.append(
            {"model": model, **facts, **costs.get((kind, model), {}), **{n: time.get(n) for n in TIMES + DEVICE}}
        )

    for row in grid.cells.filter(pl.col("kind") == "teacher").iter_rows(named=True):
        top1 = row[POINT] if row["status"] == "done" else None
        accuracy = {"accuracy_percent": None if top1 is None else 100 * top1, "accuracy_n": int(top1 is not None)}
        add("teacher", row["teacher"], **accuracy)
    of_baselines = baselines(grid).rows_by_key("student", named=True, unique=True)
    for student in grid.cells["student"].drop_nulls().unique(maintain_order=True):
        if student in of_baselines:
            figures = of_baselines[student]
            accuracy = {"accuracy_percent": figures["baseline_mean_percent"], "accuracy_n": figures["baseline_n"]}
            accuracy["val_percent"] = figures["val_mean_percent"]
            add("cell", student, mode="baseline", **accuracy)
        for row in frame.filter(pl.col("student") == student).iter_rows(named=True):
            accuracy = {"accuracy_percent": row["distilled_mean_percent"], "accuracy_n": row["distilled_n"]}
            accuracy["val_percent"] = row["val_mean_percent"]
            add(
                "cell",
                student,
                mode="distilled",
                **accuracy,
                **{n: row[n] for n in ("teacher", *AXES, "retention_percent")},
            )
    latency = pl.col("latency_ms")
    return pl.DataFrame(rows, schema=EFFICIENCY_SCHEMA).with_columns(
        throughput=1e3 * pl.col("latency_batch") / latency,
        percent_per_ms=pl.col("accuracy_percent") / latency,
        percent_per_mib_ms=pl.col("accuracy_percent") / (pl.col("size_mib") * latency),
    )


def only_selected(models: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """Of rows of `efficiency` those that are not distilled, and of the distilled what validation selects in a frame of
    `gains`."""
    keys = ["teacher", *AXES]
    selected = select(frame).select(pl.col("student").alias("model"), *keys, mode=pl.lit("distilled"))
    others = models.filter(pl.col("mode").ne_missing("distilled"))
    return pl.concat([others, models.join(selected, on=["model", "mode", *keys], how="semi", nulls_equal=True)])


def timings(grid: Grid) -> pl.DataFrame:
    """One row a model (of a kind, teacher or cell), device and batch: the number of records and the medians of their
    times. Of a model's rows the first is the one to use: of the device that timed most of the grid, then of the model.
    """
    done = _done(grid).filter(pl.col("latency_ms") > 0).with_columns(timed_there=pl.len().over(DEVICE))
    return (
        done.group_by("kind", "model", *DEVICE, maintain_order=True)
        .agg(
            pl.col("latency_ms").min().alias("fastest"),
            pl.col("latency_ms").max().alias("slowest"),
            *(pl.col(name).median() for name in TIMES),
            pl.col("timed_there").first(),
            records=pl.len(),
            fewest_runs=pl.col("latency_runs").min(),
            most_runs=pl.col("latency_runs").max(),
        )
        .sort("timed_there", "records", *DEVICE, descending=[True, True, False, False], maintain_order=True)
    )


def _done(grid: Grid) -> pl.DataFrame:
    is_teacher = pl.col("kind") == "teacher"
    model = pl.when(is_teacher).then(pl.col("teacher")).otherwise(pl.col("student"))
    return grid.cells.filter(pl.col("status") == "done").with_columns(model=model)


def _costs(grid: Grid) -> dict[tuple[str, str], dict[str, Any]]:
    """Size and work of each (kind, model): the same in all of its records."""
    costs: dict[tuple[str, str], dict[str, Any]] = {}
    for row in _done(grid).iter_rows(named=True):
        cost: dict[str, Any] = {
            "start": row["start"],
            "parameters": row["parameters"],
            "size_mib": ratio(row["size_bytes"], MIB),
            "macs": row["macs"],
        }
        costs.setdefault((row["kind"], row["model"]), cost)
    return costs
