"""What an analysis says, apart from how it is written: headings, tables, notes and lists, all in plain text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import polars as pl


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str
    lead: str = ""
    """Its first words, which a reader must not overlook."""


@dataclass(frozen=True)
class Items:
    """A list, one line each."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table as it is read (header and lines, of plain text) and as data (frame)."""

    name: str
    """What --only calls it."""
    frame: pl.DataFrame
    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    right: Sequence[bool]
    """Of each column, whether it holds figures."""
    title: str = ""


Part = Heading | Note | Items | Table


@dataclass(frozen=True)
class Document:
    title: str
    parts: Sequence[Part] = field(default_factory=list)

    @property
    def tables(self) -> dict[str, Table]:
        return {part.name: part for part in self.parts if isinstance(part, Table)}

    def only(self, name: str) -> Self:
        """The table of that name alone."""
        return replace(self, parts=[self.tables[name]])

    def opening(self) -> Self:
        """What stands before the first heading."""
        return replace(self, parts=[*itertools.takewhile(lambda part: not isinstance(part, Heading), self.parts)])
