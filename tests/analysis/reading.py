"""A grid's documents as text, for tests that look at what a person reads."""

from __future__ import annotations

import re
from collections.abc import Sequence

from analysis.document import Document, Part
from analysis.read.grids import Grid
from analysis.tables.compare import comparison
from analysis.tables.grid_tables import tables
from analysis.write.markdown import markdown


def markdown_table(grid: Grid) -> str:
    return markdown(tables(grid))


def markdown_comparison(grid: Grid) -> str:
    return markdown(comparison(grid))


def section(parts: Sequence[Part]) -> str:
    """The parts alone, without a title."""
    return markdown(Document("", parts)).partition("\n\n")[2].removesuffix("\n")


def markdown_rows(text: str) -> list[list[list[str]]]:
    """The cells of each table's lines, as a reader sees them; the rules below the headers are left out."""
    blocks = [block.strip("\n").split("\n") for block in re.split(r"\n\n+", text)]
    tables = [[line for line in block if line.startswith("|")] for block in blocks]
    shown = [[re.split(r"(?<!\\)\|", line)[1:-1] for line in [table[0], *table[2:]]] for table in tables if table]
    # In front of a letter a backslash is one.
    return [
        [[re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell.strip()) for cell in line] for line in table] for table in shown
    ]
