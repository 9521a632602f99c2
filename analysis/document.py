"""What an analysis says, apart from how it is written: headings, tables, notes and lists, all in plain text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Note:
    """A paragraph. lead: its first words, which a reader must not overlook."""

    text: str
    lead: str = ""


@dataclass(frozen=True)
class Items:
    """A list, one line each."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table as it is read (header and lines, of plain text) and as data (frame). right: columns of figures. name:
    what --only calls it."""

    name: str
    frame: pl.DataFrame
    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    right: Sequence[bool]
    title: str = ""

    def _repr_html_(self) -> str:
        return Document("", [self])._repr_html_()


Part = Heading | Note | Items | Table


@dataclass(frozen=True)
class Document:
    title: str
    parts: Sequence[Part] = field(default_factory=list)

    @property
    def tables(self) -> dict[str, Table]:
        return {part.name: part for part in self.parts if isinstance(part, Table)}

    def only(self, name: str) -> Document:
        """The table of that name alone."""
        return Document(self.title, [self.tables[name]])

    def opening(self) -> Document:
        """What stands before the first heading."""
        return Document(self.title, [*itertools.takewhile(lambda part: not isinstance(part, Heading), self.parts)])

    def _repr_html_(self) -> str:
        from analysis.write.html import html_notebook

        return html_notebook(self)
