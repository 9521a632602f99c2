"""What each model costs and what it gives for that: a row a model and mode, as a frame and as a table."""

from __future__ import annotations

from typing import Any

import polars as pl

from analysis.document import Heading, Note, Part, Table
from analysis.measures.gains import POINT, baselines, crossed, gains, ratio
from analysis.measures.selection import select
from analysis.read.grids import Grid
from analysis.read.schema import AXES
from analysis.shown import UNKNOWN, Row, number, percent, with_setting
from grid.contract.units import human

MIB = 2**20
LEAST_APART = 1.1  # times, slowest by fastest record
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


def efficiency(grid: Grid) -> pl.DataFrame:
    """One row a teacher (mode null), student alone, and student by teacher and setting.

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
    alone, taught = baselines(grid).rows_by_key("student", named=True, unique=True), gains(grid)
    for student in grid.cells["student"].drop_nulls().unique(maintain_order=True):
        if student in alone:
            figures = alone[student]
            accuracy = {"accuracy_percent": figures["baseline_mean_percent"], "accuracy_n": figures["baseline_n"]}
            accuracy["val_percent"] = figures["val_mean_percent"]
            add("cell", student, mode="baseline", **accuracy)
        for row in taught.filter(pl.col("student") == student).iter_rows(named=True):
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


def models_section(grid: Grid) -> list[Part]:
    """The table of models with what a reader must know to trust it; nothing where nothing is done yet."""
    if _done(grid).is_empty():
        return []
    frame = gains(grid)
    axes = crossed(frame)
    shown = efficiency(grid)
    if axes:
        # A student costs the same in every setting: only what validation selects has a row of its own.
        keys = ["teacher", *AXES]
        selected = select(frame).select(pl.col("student").alias("model"), *keys, mode=pl.lit("distilled"))
        others = shown.filter(pl.col("mode").ne_missing("distilled"))
        shown = pl.concat([others, shown.join(selected, on=["model", "mode", *keys], how="semi", nulls_equal=True)])
    names = ["Accuracy", "Retention", "Parameters", "Size (MiB)", "MACs", "ms per batch", "Images/s"]
    names += ["Accuracy / ms", "Accuracy / (MiB x ms)"]
    lines = []
    for row in shown.iter_rows(named=True):
        n = f" (n={row['accuracy_n']})" if row["mode"] and row["accuracy_n"] else ""
        line = [row["model"], shown_training(row, axes), number(row["accuracy_percent"]) + n]
        line += [percent(row["retention_percent"]), count(row["parameters"]), digits(row["size_mib"])]
        line.append(count(row["macs"], billion="G"))
        line += [shown_latency(row), UNKNOWN if row["throughput"] is None else f"{row['throughput']:,.0f}"]
        lines.append([*line, digits(row["percent_per_ms"]), digits(row["percent_per_mib_ms"])])
    header, right = ["Model", "Trained", *names], [False, False, *(True for _ in names)]
    table = Table("models", shown, header, lines, right)
    what = "Accuracy as above, mean over seeds. Size: parameters and buffers. MACs: multiply-adds of one image."
    if axes and shown["mode"].is_in(["distilled"]).any():
        what += " A student costs the same in every setting; of those, what validation selects is shown."
    elif axes:
        what += " A student costs the same in every setting, so the distilled ones are left out."
    return [Heading("Models"), table, Note(what), *timing_notes(grid)]


def shown_training(row: Row, axes: list[str]) -> str:
    """'as a teacher', 'elsewhere' (a given one), 'alone', 'from ViT-T', 'from ViT-T, temperature 4'."""
    if row["mode"] is None:
        return "elsewhere" if (row["start"] or "").startswith("given") else "as a teacher"
    if row["mode"] == "baseline":
        return "alone"
    return with_setting(f"from {row['teacher']}", row, axes)


def shown_latency(row: Row) -> str:
    """'4.46 [4.15, 4.71]': median and quartiles in ms."""
    median, *quartiles = (row[name] for name in TIMES)
    if median is None or None in quartiles:
        return digits(median)
    return f"{digits(median)} [{digits(quartiles[0])}, {digits(quartiles[1])}]"


def count(figure: float | None, *, billion: str = "B") -> str:
    return UNKNOWN if figure is None else human(figure, billion=billion)


def digits(figure: float | None) -> str:
    """Two decimals, or two digits where these would lose them: '17.38', '0.75', '0.042'."""
    if figure is None:
        return UNKNOWN
    return f"{figure:.2f}" if figure == 0 or figure >= 0.1 else f"{figure:.2g}"


def timing_notes(grid: Grid) -> list[Part]:
    """How the times were taken, and which of them cannot be compared."""
    measured = timings(grid)
    if measured.is_empty():
        return []
    used = measured.unique(["kind", "model"], keep="first", maintain_order=True)
    runs = sorted({*used["fewest_runs"].drop_nulls(), *used["most_runs"].drop_nulls()})
    batches = (
        f"{' to '.join(str(run) for run in dict.fromkeys((runs[0], runs[-1])))} batches" if runs else "the batches"
    )
    timed_on: dict[str, list[str]] = {}
    for row in used.iter_rows(named=True):
        timed_on.setdefault(_place(row), []).append(row["model"])
    what = (
        f"ms per batch: a forward pass of {next(iter(timed_on))}, in float32; median [quartiles] of {batches}, and of "
        "that the median over the model's records. It was measured in the process of each cell, beside whatever else "
        "the machine ran"
    )
    apart = used.select((pl.col("slowest") / pl.col("fastest")).max()).item()
    what += f": records of one model differ by up to {apart:.1f}x." if apart >= LEAST_APART else "."
    notes: list[Part] = [Note(what)]
    if len(timed_on) > 1:
        apart = "; ".join(f"{', '.join(dict.fromkeys(models))} with {place}" for place, models in timed_on.items())
        text = f"{apart}. Times, and the scores made of them, compare on one device alone."
        notes.append(Note(text, lead="Not comparable"))
    for _, rows in measured.group_by("kind", "model", maintain_order=True):
        if rows.height > 1:
            stands, *others = (f"{_place(row)} (records: {row['records']})" for row in rows.to_dicts())
            text = f"{rows['model'][0]} stands here with {stands}; left out: {', '.join(others)}."
            notes.append(Note(text, lead="Several devices"))
    return notes


def _place(row: Row) -> str:
    return f"{row['latency_batch']} images on {row['latency_device']}"
