"""What became of a grid's stages: how much a table stands on, what runs, what failed and why."""

from __future__ import annotations

import polars as pl

from analysis.document import Heading, Note, Part, Table
from analysis.load import Grids, Records
from analysis.shown import Row, title


def unfinished(records: Records) -> list[Part]:
    """What a table does not stand on, and what it mixes; nothing where every cell is done, and all alike."""
    cells = (records.whole or records).cells
    count = {status: cells.filter(pl.col("status") == status).height for status in ("done", "failed", "running")}
    missing = cells.height - sum(count.values())
    notes: list[Part] = []
    if records.only:
        text = f"{', '.join(records.only)}: {records.cells.height} of {cells.height} teachers and cells are shown."
        notes.append(Note(text, lead="Only"))
    if count["done"] < cells.height:
        rest = [f"{count['failed']} failed", *([f"{count['running']} running"] if count["running"] else [])]
        what = "the whole" if records.only else "this table"
        text = (
            f"{what} stands on {count['done']} of {cells.height} teachers and cells ({', '.join(rest)}, {missing} "
            "missing). Launch the grid again to finish it."
        )
        notes.append(Note(text, lead="Unfinished"))
    precisions = sorted(cells.filter(pl.col("kind") == "cell")["precision"].drop_nulls().unique())
    if len(precisions) > 1:
        text = (
            f"its cells ran in {' and '.join(precisions)}; set recipe.precision and launch again to compare like with "
            "like."
        )
        notes.append(Note(text, lead="Mixed precision"))
    return notes + [Note(problem, lead="Unreadable") for problem in records.problems]


def running_section(records: Records) -> list[Part]:
    """What runs now and how far it is; nothing where nothing runs."""
    columns = ("grid", "stage_id", "kind", "teacher", "student", "mode", "seed", "temperature", "alpha", "progress")
    frame = records.stages.filter(pl.col("status") == "running").select(columns)
    if frame.is_empty():
        return []
    lines = [[*_named(row, records), f"{100 * row['progress']:.0f} %"] for row in frame.iter_rows(named=True)]
    return [Heading("Running"), _table("running", frame, "Progress", lines, records)]


def failures_section(records: Records) -> list[Part]:
    """What failed, with its reason; nothing where nothing did."""
    columns = ("grid", "stage_id", "kind", "teacher", "student", "mode", "seed", "temperature", "alpha", "error")
    frame = records.stages.filter(pl.col("status") == "failed").select(columns)
    if frame.is_empty():
        return []
    lines = [[*_named(row, records), row["error"] or ""] for row in frame.iter_rows(named=True)]
    return [Heading("Failures"), _table("failures", frame, "Why", lines, records)]


def _named(row: Row, records: Records) -> list[str]:
    return [*([row["grid"]] if isinstance(records, Grids) else []), title(row), row["stage_id"]]


def _table(name: str, frame: pl.DataFrame, last: str, lines: list[list[str]], records: Records) -> Table:
    header = [*(["Grid"] if isinstance(records, Grids) else []), "What", "Stage", last]
    return Table(name, frame, header, lines, [False for _ in header])
