"""Several grids as one document: their gains, a line a grid, costs, and what became of their stages."""

from __future__ import annotations

import polars as pl

from analysis.document import Document, Heading, Note, Part, Table
from analysis.measures.by_grid import by_grid
from analysis.measures.gains import baselines, gains
from analysis.read.grids import Grids
from analysis.shown import GAIN_CLEAR, NEGATIVE_CLEAR, UNKNOWN
from analysis.tables.costs import costs_section
from analysis.tables.grid_tables import PROTOCOL, baselines_table, gains_note, gains_table
from analysis.tables.standing import failures_section, running_section, unfinished
from analysis.tables.verdicts import reading_sentences, verdict_sentences
from grid.contract.program.installed import analysis_command
from grid.contract.units import shown_hours


def many_tables(grids: Grids) -> Document:
    """The gains of all grids in one table, then a table with a line a grid, and what belongs to them."""
    protocol = f"Top-1 on the test split of each grid's data set in percent, {PROTOCOL}"
    frame, of_baselines = gains(grids), baselines(grids)
    others = of_baselines.filter(~pl.col("grid").is_in(frame["grid"].unique().to_list()))
    parts: list[Part] = []
    if not frame.is_empty():
        parts += [gains_table(grids, frame), *gains_note(frame, protocol)]
        parts += [Note(" ".join([*verdict_sentences(frame), *reading_sentences(frame)]), lead="Verdict")]
    if not others.is_empty():
        parts += [baselines_table(grids, others, name="gains" if frame.is_empty() else "baselines"), Note(protocol)]
    parts += [*unfinished(grids), *_grids_section(grids, frame), *costs_section(grids)]
    return Document(grids.title, [*parts, *running_section(grids), *failures_section(grids)])


def _grids_section(grids: Grids, frame: pl.DataFrame) -> list[Part]:
    found = by_grid(grids, frame)
    lines = []
    for row in found.iter_rows(named=True):
        mean = row["gain_mean_points"]
        neither = row["gains"] - row["gain"] - row["negative_transfer"]
        line = [row["grid"], row["dataset"], f"{row['done']} of {row['planned']}", f"{row['failed']}"]
        line += [f"{row['gain']}", f"{row['negative_transfer']}", f"{neither}"]
        lines.append([*line, UNKNOWN if mean is None else f"{mean:+.2f}", shown_hours(row["device_hours"])])
    header = ["Grid", "Data set", "Done", "Failed", f"Gains {GAIN_CLEAR}", f"Losses {NEGATIVE_CLEAR}", "Neither"]
    header += ["Mean gain", "Device time"]
    table = Table("grids", found, header, lines, [i >= 2 for i, _ in enumerate(header)])
    what = (
        "Gains and losses: significant ones, each grid corrected on its own. Device time: a stage that several grids "
        f"share counts in each of them. The tables of one grid, with models and what validation selects: "
        f"{analysis_command()} table GRID."
    )
    return [Heading("Grids"), table, Note(what)]
