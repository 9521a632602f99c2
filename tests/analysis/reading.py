"""A grid's documents as text, for tests that look at what a person reads."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.compare import comparison
from analysis.document import Document, Part
from analysis.load import Grid
from analysis.render import markdown
from analysis.tables import tables


def markdown_table(grid: Grid) -> str:
    return markdown(tables(grid))


def markdown_comparison(grid: Grid) -> str:
    return markdown(comparison(grid))


def section(parts: Sequence[Part]) -> str:
    """The parts alone, without a title."""
    return markdown(Document("", parts)).partition("\n\n")[2].removesuffix("\n")
