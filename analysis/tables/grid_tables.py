"""The tables of a grid as a document: gains and compression, what validation selects, models, costs and failures."""

from __future__ import annotations

from typing import Any

import polars as pl

from analysis.document import Document, Note, Part, Table
from analysis.measures.gains import baselines, crossed, gains
from analysis.measures.overall import overall
from analysis.measures.pairs import POINT
from analysis.measures.selection import has_validation
from analysis.read.grids import Grid, Grids, Records
from analysis.shown import (
    GAIN_CLEAR,
    NEGATIVE,
    NEGATIVE_CLEAR,
    number,
    percent,
    shown_accuracy,
    shown_gain,
    shown_n,
    times,
    value,
)
from analysis.tables.costs import costs_section
from analysis.tables.models import models_section
from analysis.tables.settings import gain_grids, method_tables, selection_section
from analysis.tables.standing import failures_section, running_section, unfinished
from analysis.tables.verdicts import bootstrap_sentence, design_sentence, reading_sentences, verdict_sentences
from grid.contract.units import human

LISTED_FIRST = 12  # settings: of more, what was selected and the map of gains come before the list
PROTOCOL = "last epoch, mean ± standard deviation over seeds."


def tables(grid: Grid) -> Document:
    """The gain and compression table with what a reader must know to trust it, and the tables that belong to it."""
    frame = gains(grid)
    rest = [*unfinished(grid), *models_section(grid, frame), *costs_section(grid)]
    rest += [*running_section(grid), *failures_section(grid)]
    protocol = f"Top-1 on the test split of {grid.spec['dataset']['name']} in percent, {PROTOCOL}"
    if frame.is_empty():
        return Document(grid.title, [baselines_table(grid, baselines(grid)), Note(protocol), *rest])
    selects = bool(crossed(frame)) and has_validation(grid)
    listed = [gains_table(grid, frame, selects=selects), *gains_note(frame, protocol), *_over_all_pairs(grid, frame)]
    crossing = [*gain_grids(frame), *method_tables(frame)]
    answer = [*selection_section(grid, frame), *crossing]
    if crossing and frame.height > LISTED_FIRST:
        return Document(grid.title, [*answer, *listed, *_teachers(grid), *rest])
    return Document(grid.title, [*listed, *answer, *_teachers(grid), *rest])


def gains_table(records: Records, frame: pl.DataFrame, *, selects: bool = False) -> Table:
    """`frame`: of `gains`. selects: with the accuracy on validation, which selects among the settings."""
    several, varying = isinstance(records, Grids), crossed(frame)
    header = [*(["Grid"] if several else []), "Experiment", "Teacher (params)", "Student (params)"]
    names = len(header)
    header += [*(axis.capitalize() for axis in varying), *(["Val"] if selects else [])]
    header += ["Baseline", "Distilled", "Gain", "Retention", "Compression"]
    lines = []
    for row in frame.iter_rows(named=True):
        cells = [row["grid"]] if several else []
        cells += [row["experiment"], _model(row, "teacher"), _model(row, "student")]
        cells += [value(row[axis]) for axis in varying]
        cells += [number(row["val_mean_percent"])] if selects else []
        cells += [shown_accuracy(row, "baseline"), shown_accuracy(row, "distilled"), shown_gain(row)]
        lines.append([*cells, percent(row["retention_percent"]), times(row["compression"])])
    return Table("gains", frame, header, lines, [i >= names for i, _ in enumerate(header)])


def baselines_table(records: Records, frame: pl.DataFrame, *, name: str = "gains") -> Table:
    """`frame`: of `baselines`; the main table where nothing is distilled."""
    several = isinstance(records, Grids)
    lines = [
        [*([row["grid"]] if several else []), _model(row, "student"), shown_accuracy(row, "baseline")]
        for row in frame.iter_rows(named=True)
    ]
    header = [*(["Grid"] if several else []), "Student (params)", "Baseline"]
    return Table(name, frame, header, lines, [column == "Baseline" for column in header])


def _model(row: dict[str, object], role: str) -> str:
    parameters = row[f"{role}_parameters"]
    size = f" ({human(parameters)})" if isinstance(parameters, int) else ""
    return f"{row[role]}{size}"


def gains_note(frame: pl.DataFrame, protocol: str) -> list[Part]:
    """How the figures of `gains` are to be read."""
    note = f"{protocol} Gain: distilled minus baseline, paired by seed ({shown_n(frame)}), in points"
    most = max(frame["gain_n"], default=0)
    note += {0: "; no seed stands here both ways.", 1: "; one seed gives no interval."}.get(
        most, ", with the 95 % interval of each pair alone."
    )
    if frame.filter(pl.col("gain_n") > 1, pl.col("gain_low_points").is_null()).height:
        note += " Equal gains of all seeds show no spread, and so have no interval."
    legend = []
    effects = set(frame["effect"])
    if "gain" in effects:
        legend.append(f"{GAIN_CLEAR} significant gain")
    if "negative transfer" in effects:
        legend.append(f"{NEGATIVE_CLEAR} significant loss (negative transfer)")
    if frame.filter(pl.col("gain_mean_points").round(2) < 0, pl.col("effect") != "negative transfer").height:
        legend.append(f"{NEGATIVE} below the baseline, but not significantly")
    note += " Retention: the distilled student's accuracy in percent of its teacher's."
    return [Note(note), *([Note(f"{'; '.join(legend)}.")] if legend else [])]


def _over_all_pairs(grid: Grid, frame: pl.DataFrame) -> list[Part]:
    """The verdicts, and what all pairs say together; of crossed settings the former alone, for there is no one figure
    over them. Nothing of the latter for fewer than two pairs or seeds."""
    sentences = [*verdict_sentences(frame), *reading_sentences(frame)]
    if frame["gain_p"].count():
        sentences.append(design_sentence(grid))
    said = [Note(" ".join(sentences), lead="Verdict")]
    if not crossed(frame):
        (row,) = overall(grid).iter_rows(named=True)
        if row["pairs"] > 1 and None not in (row["improvement_low"], row["gain_iqm_points_low"]):
            said.append(Note(_overall_said(grid, row)))
    return [*said]


def _overall_said(grid: Grid, row: dict[str, Any]) -> str:
    return (
        f"Over all {row['pairs']} pairs ({row['baseline_runs']} runs alone, each counted for every teacher, "
        f"and {row['distilled_runs']} distilled): interquartile mean {row['baseline_iqm_percent']:.2f} alone, "
        f"{row['distilled_iqm_percent']:.2f} distilled; of the paired gains {row['gain_iqm_points']:+.2f} "
        f"[{row['gain_iqm_points_low']:+.2f}, {row['gain_iqm_points_high']:+.2f}]; probability of improvement "
        f"{row['improvement']:.2f} [{row['improvement_low']:.2f}, {row['improvement_high']:.2f}]. "
        f"{bootstrap_sentence(grid)}"
    )


def _teachers(grid: Grid) -> list[Part]:
    done = grid.cells.filter(pl.col("kind") == "teacher", pl.col("status") == "done", pl.col(POINT).is_not_null())
    shown = [f"{name} {100 * top1:.2f}" for name, top1 in done.select("teacher", POINT).iter_rows()]
    return [Note(f"Teachers: {', '.join(shown)}.")] if shown else []
