"""The table of a grid as markdown: gains and compression, what validation selects, and the models."""

from __future__ import annotations

import polars as pl

from analysis.efficiency import models_section
from analysis.gains import POINT, baselines, crossed, gains
from analysis.load import Grid
from analysis.markdown import (
    GAIN_CLEAR,
    NEGATIVE,
    NEGATIVE_CLEAR,
    align,
    escape,
    human,
    number,
    percent,
    shown_accuracy,
    shown_gain,
    times,
    value,
)
from analysis.selection import gain_grids, has_validation, selection_section


def markdown_table(grid: Grid) -> str:
    """The gain and compression table with what a reader must know to trust it."""
    frame = gains(grid)
    if frame.is_empty():
        return _baseline_markdown(grid)
    varying = crossed(frame)
    selects = bool(varying) and has_validation(grid)
    header = ["Experiment", "Teacher (params)", "Student (params)", *(axis.capitalize() for axis in varying)]
    numeric = [*(["Val"] if selects else []), "Baseline", "Distilled", "Gain", "Retention", "Compression"]
    header += numeric
    lines = []
    for row in frame.iter_rows(named=True):
        cells = [escape(row["experiment"]), _model(row, "teacher"), _model(row, "student")]
        cells += [value(row[axis]) for axis in varying]
        cells += [number(row["val_mean"])] if selects else []
        cells += [shown_accuracy(row, "baseline"), shown_accuracy(row, "distilled"), shown_gain(row)]
        lines.append([*cells, percent(row["retention"]), times(row["compression"])])
    table = align(header, lines, right=[i >= 3 for i, _ in enumerate(header)])
    notes = [*_notes(grid, frame), *selection_section(grid, frame), *gain_grids(frame), *_teachers(grid)]
    parts = [f"### {escape(grid.name)}", table, *notes, *models_section(grid), *unfinished(grid)]
    return "\n\n".join(parts) + "\n"


def _baseline_markdown(grid: Grid) -> str:
    frame = baselines(grid)
    lines = [[_model(row, "student"), shown_accuracy(row, "baseline")] for row in frame.iter_rows(named=True)]
    table = align(["Student (params)", "Baseline"], lines, right=[False, True])
    notes = [_protocol(grid), *models_section(grid), *unfinished(grid)]
    return "\n\n".join([f"### {escape(grid.name)}", table, *notes]) + "\n"


def _model(row: dict[str, object], role: str) -> str:
    parameters = row[f"{role}_parameters"]
    size = f" ({human(parameters)})" if isinstance(parameters, int) else ""
    return f"{escape(str(row[role]))}{size}"


def _notes(grid: Grid, frame: pl.DataFrame) -> list[str]:
    counts = sorted(set(frame["gain_n"]))
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    note = f"{_protocol(grid)} Gain: distilled minus baseline, paired by seed ({n}), in points"
    most = max(counts, default=0)
    note += {0: "; no seed has both yet.", 1: "; one seed gives no interval."}.get(most, ", with its 95 % t interval.")
    legend = []
    effects = set(frame["effect"])
    if "gain" in effects:
        legend.append(f"{GAIN_CLEAR} gain: the interval is above 0")
    if "negative transfer" in effects:
        legend.append(f"{NEGATIVE_CLEAR} negative transfer: the interval is below 0")
    if frame.filter(pl.col("gain_mean").round(9) < 0, pl.col("effect") != "negative transfer").height:
        legend.append(f"{NEGATIVE} below the baseline, but the interval includes 0 or there is none")
    legend_line = [". ".join(["; ".join(legend)]) + "."] if legend else []
    note += " Retention: the distilled student's accuracy in percent of its teacher's."
    return [note, *legend_line]


def _protocol(grid: Grid) -> str:
    dataset = escape(str(grid.spec["dataset"]["name"]))
    return f"Top-1 on the test split of {dataset} in percent, last epoch, mean ± standard deviation over seeds."


def _teachers(grid: Grid) -> list[str]:
    done = grid.cells.filter(pl.col("kind") == "teacher", pl.col("status") == "done", pl.col(POINT).is_not_null())
    shown = [f"{escape(name)} {100 * top1:.2f}" for name, top1 in done.select("teacher", POINT).iter_rows()]
    return [f"Teachers: {', '.join(shown)}."] if shown else []


def unfinished(grid: Grid) -> list[str]:
    """What the table does not stand on, and what it mixes; nothing where every cell is done, and all alike."""
    total = grid.cells.height
    done = grid.cells.filter(pl.col("status") == "done").height
    notes = []
    if done < total:
        failed = grid.cells.filter(pl.col("status") == "failed").height
        notes.append(
            f"**Unfinished**: this table stands on {done} of {total} teachers and cells ({failed} failed, "
            f"{total - done - failed} missing). Launch the grid again to finish it."
        )
    precisions = sorted(grid.cells.filter(pl.col("kind") == "cell")["precision"].drop_nulls().unique())
    if len(precisions) > 1:
        notes.append(
            f"**Mixed precision**: its cells ran in {' and '.join(precisions)}; set recipe.precision and launch again "
            "to compare like with like."
        )
    return notes + [f"**Unreadable**: {escape(problem)}" for problem in grid.problems]
