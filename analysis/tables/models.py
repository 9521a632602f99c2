"""The table of models: what each costs, what it gives for that, and how its times were taken."""

from __future__ import annotations

import polars as pl

from analysis.document import Heading, Note, Part, Table
from analysis.measures.efficiency import TIMES, efficiency, only_selected, timings
from analysis.measures.gains import crossed
from analysis.read.grids import Grid
from analysis.shown import UNKNOWN, FrameRow, number, percent, with_setting
from grid.contract.units import human

LEAST_APART = 1.1  # times, slowest by fastest record


def models_section(grid: Grid, frame: pl.DataFrame) -> list[Part]:
    """The table of models with what a reader must know to trust it; nothing where nothing is done yet. frame: of
    `gains`."""
    if grid.cells.filter(pl.col("status") == "done").is_empty():
        return []
    axes = crossed(frame)
    shown = efficiency(grid, frame)
    if axes:
        # A student costs the same in every setting: only what validation selects has a row of its own.
        shown = only_selected(shown, frame)
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


def shown_training(row: FrameRow, axes: list[str]) -> str:
    """'as a teacher', 'elsewhere' (a given one), 'alone', 'from ViT-T', 'from ViT-T, temperature 4'."""
    if row["mode"] is None:
        return "elsewhere" if (row["start"] or "").startswith("given") else "as a teacher"
    if row["mode"] == "baseline":
        return "alone"
    return with_setting(f"from {row['teacher']}", row, axes)


def shown_latency(row: FrameRow) -> str:
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


def _place(row: FrameRow) -> str:
    return f"{row['latency_batch']} images on {row['latency_device']}"
