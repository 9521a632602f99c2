"""What became of a grid's stages: how much a table stands on, what runs, what failed and why."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from analysis.document import Heading, Note, Part, Table
from analysis.read.grids import Grids, Records
from analysis.read.load import LEFT_OUT
from analysis.shown import UNKNOWN, FrameRow, title
from grid.contract.plan import NUMBERS, SETTING


def unfinished(records: Records) -> list[Part]:
    """What a table does not stand on, and what it mixes; nothing where every cell is done, and all alike."""
    cells = (records.whole or records).cells
    count = {status: cells.filter(pl.col("status") == status).height for status in ("done", "failed", "running")}
    missing = cells.height - sum(count.values())
    notes: list[Part] = []
    if records.only:
        text = f"{', '.join(records.only)}: {records.cells.height} of {cells.height} teachers and cells are shown. "
        text += "Marks and p values stay those of the whole grid, with all of its seeds."
        notes.append(Note(text, lead="Only"))
    if count["done"] < cells.height:
        rest = [f"{count['failed']} failed", *([f"{count['running']} running"] if count["running"] else [])]
        what = "the whole" if records.only else "this table"
        text = (
            f"{what} stands on {count['done']} of {cells.height} teachers and cells ({', '.join(rest)}, {missing} "
            "missing). Launch the grid again to finish it"
        )
        taught = cells.filter(pl.col("mode") == "distilled").height > 0
        text += "; verdicts stand on what is there so far, and may change." if taught else "."
        notes.append(Note(text, lead="Unfinished"))
    precisions = sorted(cells.filter(pl.col("kind") == "cell")["precision"].drop_nulls().unique())
    if len(precisions) > 1:
        text = (
            f"its cells ran in {' and '.join(precisions)}; set recipe.precision and launch again to compare like with "
            "like."
        )
        notes.append(Note(text, lead="Mixed precision"))
    leads = ["Left out" if problem.endswith(LEFT_OUT) else "Unreadable" for problem in records.problems]
    return notes + [Note(problem, lead=lead) for problem, lead in zip(records.problems, leads, strict=True)]


def running_section(records: Records) -> list[Part]:
    """What runs now and how far it is; nothing where nothing runs."""
    return _section(records, "running", "Running", "Progress", "progress", _shown_progress)


def failures_section(records: Records) -> list[Part]:
    """What failed, with its reason; nothing where nothing did."""
    return _section(records, "failed", "Failures", "Why", "error", lambda row: row["error"] or "")


def _shown_progress(row: FrameRow) -> str:
    return UNKNOWN if row["progress"] is None else f"{100 * row['progress']:.0f} %"


def _section(
    records: Records, status: str, heading: str, header: str, column: str, show: Callable[[FrameRow], str]
) -> list[Part]:
    """The stages of a status, with one of their facts."""
    columns = (
        "grid",
        "stage_id",
        "kind",
        "teacher",
        "student",
        "mode",
        "seed",
        *NUMBERS,
        SETTING,
        column,
    )
    frame = records.stages.filter(pl.col("status") == status).select(columns)
    if frame.is_empty():
        return []
    several = isinstance(records, Grids)
    lines = [
        [*([row["grid"]] if several else []), title(row), row["stage_id"], show(row)]
        for row in frame.iter_rows(named=True)
    ]
    names = [*(["Grid"] if several else []), "What", "Stage", header]
    return [Heading(heading), Table(heading.lower(), frame, names, lines, [False for _ in names])]
