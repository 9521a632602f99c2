"""The tables of a grid as a document: gains and compression, what validation selects, models, costs and failures."""

from __future__ import annotations

import polars as pl

from analysis.costs import costs_section
from analysis.document import Document, Heading, Note, Part, Table
from analysis.efficiency import models_section
from analysis.gains import POINT, baselines, crossed, gains
from analysis.load import Grid
from analysis.overall import overall
from analysis.selection import gain_grids, has_validation, method_tables, selection_section
from analysis.shown import (
    GAIN_CLEAR,
    NEGATIVE,
    NEGATIVE_CLEAR,
    human,
    number,
    percent,
    shown_accuracy,
    shown_gain,
    times,
    title,
    value,
)


def tables(grid: Grid) -> Document:
    """The gain and compression table with what a reader must know to trust it, and the tables that belong to it."""
    frame = gains(grid)
    rest = [*unfinished(grid), *models_section(grid), *costs_section(grid), *failures(grid)]
    if frame.is_empty():
        return Document(grid.name, [_baselines(grid), Note(_protocol(grid)), *rest])
    notes = [*_notes(grid, frame), *_over_all_pairs(grid, frame), *selection_section(grid, frame)]
    crossing = [*gain_grids(frame), *method_tables(frame)]
    return Document(grid.name, [_gains(grid, frame), *notes, *crossing, *_teachers(grid), *rest])


def _gains(grid: Grid, frame: pl.DataFrame) -> Table:
    varying = crossed(frame)
    selects = bool(varying) and has_validation(grid)
    header = ["Experiment", "Teacher (params)", "Student (params)", *(axis.capitalize() for axis in varying)]
    header += [*(["Val"] if selects else []), "Baseline", "Distilled", "Gain", "Retention", "Compression"]
    lines = []
    for row in frame.iter_rows(named=True):
        cells = [row["experiment"], _model(row, "teacher"), _model(row, "student")]
        cells += [value(row[axis]) for axis in varying]
        cells += [number(row["val_mean"])] if selects else []
        cells += [shown_accuracy(row, "baseline"), shown_accuracy(row, "distilled"), shown_gain(row)]
        lines.append([*cells, percent(row["retention"]), times(row["compression"])])
    return Table("gains", frame, header, lines, [i >= 3 for i, _ in enumerate(header)])


def _baselines(grid: Grid) -> Table:
    frame = baselines(grid)
    lines = [[_model(row, "student"), shown_accuracy(row, "baseline")] for row in frame.iter_rows(named=True)]
    return Table("gains", frame, ["Student (params)", "Baseline"], lines, [False, True])


def _model(row: dict[str, object], role: str) -> str:
    parameters = row[f"{role}_parameters"]
    size = f" ({human(parameters)})" if isinstance(parameters, int) else ""
    return f"{row[role]}{size}"


def _notes(grid: Grid, frame: pl.DataFrame) -> list[Part]:
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
    note += " Retention: the distilled student's accuracy in percent of its teacher's."
    return [Note(note), *([Note(f"{'; '.join(legend)}.")] if legend else [])]


def _over_all_pairs(grid: Grid, frame: pl.DataFrame) -> list[Part]:
    """What all pairs say together, and how many gains stand a correction for their number; of crossed settings the
    latter alone, for there is no one figure over them. Nothing for fewer than two pairs or seeds."""
    tested = frame["gain_p_holm"].drop_nulls()
    sentences = []
    if not crossed(frame):
        (row,) = overall(grid).iter_rows(named=True)
        if row["pairs"] > 1 and row["improvement_low"] is not None:
            shown = {
                name: f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
                for name in ("baseline_iqm", "distilled_iqm", "improvement")
            }
            sentences.append(
                f"Over all {row['pairs']} pairs ({row['baseline_runs']} runs alone, {row['distilled_runs']} "
                f"distilled): interquartile mean {shown['baseline_iqm']} alone, {shown['distilled_iqm']} distilled; "
                f"probability of improvement {shown['improvement']}, with 95 % stratified bootstrap intervals."
            )
    if len(tested) > 1:
        least, below = min(tested), sum(p < 0.05 for p in tested)
        sentences.append(
            f"Correction for {len(tested)} {'gains' if crossed(frame) else 'pairs'} (Holm, of paired t-tests): the "
            f"smallest corrected p is {'below 0.001' if least < 0.001 else f'{least:.2g}'}; {below} of {len(tested)} "
            f"{'stays' if below == 1 else 'stay'} below 0.05."
        )
    return [Note(" ".join(sentences))] if sentences else []


def _protocol(grid: Grid) -> str:
    dataset = grid.spec["dataset"]["name"]
    return f"Top-1 on the test split of {dataset} in percent, last epoch, mean ± standard deviation over seeds."


def _teachers(grid: Grid) -> list[Part]:
    done = grid.cells.filter(pl.col("kind") == "teacher", pl.col("status") == "done", pl.col(POINT).is_not_null())
    shown = [f"{name} {100 * top1:.2f}" for name, top1 in done.select("teacher", POINT).iter_rows()]
    return [Note(f"Teachers: {', '.join(shown)}.")] if shown else []


def failures(grid: Grid) -> list[Part]:
    """What failed, with its reason; nothing where nothing did."""
    failed = grid.cells.filter(pl.col("status") == "failed")
    if failed.is_empty():
        return []
    frame = failed.select("stage_id", "kind", "teacher", "student", "mode", "seed", "temperature", "alpha", "error")
    lines = [[title(row), row["stage_id"], row["error"] or ""] for row in frame.iter_rows(named=True)]
    return [Heading("Failures"), Table("failures", frame, ["What", "Stage", "Why"], lines, [False] * 3)]


def unfinished(grid: Grid) -> list[Part]:
    """What the table does not stand on, and what it mixes; nothing where every cell is done, and all alike."""
    total = grid.cells.height
    done = grid.cells.filter(pl.col("status") == "done").height
    notes: list[Part] = []
    if done < total:
        failed = grid.cells.filter(pl.col("status") == "failed").height
        text = (
            f"this table stands on {done} of {total} teachers and cells ({failed} failed, {total - done - failed} "
            "missing). Launch the grid again to finish it."
        )
        notes.append(Note(text, lead="Unfinished"))
    precisions = sorted(grid.cells.filter(pl.col("kind") == "cell")["precision"].drop_nulls().unique())
    if len(precisions) > 1:
        text = (
            f"its cells ran in {' and '.join(precisions)}; set recipe.precision and launch again to compare like with "
            "like."
        )
        notes.append(Note(text, lead="Mixed precision"))
    return notes + [Note(problem, lead="Unreadable") for problem in grid.problems]
