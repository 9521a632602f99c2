"""Grids as they stand: what is read of them, as frames, and what is made of that. In a notebook each shows itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from analysis.document import Document
from analysis.read.storage import Reader

if TYPE_CHECKING:
    from analysis.plots import Picture
    from analysis.report import Page

# What these methods call is imported when it is asked for: it is made of grids itself.


@dataclass(frozen=True, kw_only=True, repr=False)
class Records(ABC):
    """Grids as they stand. cells: one row a planned teacher or cell of a grid, the plan's labels joined with the
    record's facts, accuracies as fractions; stages: one row a stage of any kind, likewise. status is done, failed,
    running or missing; progress: of a running one, a fraction. problems: what could not be read so far, a line each.
    reader: of the storages, for what is read only when it is asked for. only, whole: where this is a part, what it was
    cut down to and what of."""

    cells: pl.DataFrame
    stages: pl.DataFrame
    problems: list[str]
    reader: Reader
    only: tuple[str, ...] = ()
    whole: Records | None = None

    @property
    @abstractmethod
    def called(self) -> str: ...

    @property
    @abstractmethod
    def title(self) -> str: ...

    def where(self, *wanted: str) -> Self:
        """These alone, such as `grid.where("student=ResNet-S")`: as `analysis.read.where.filtered`."""
        from analysis.read.where import filtered

        return filtered(self, wanted)

    def gains(self) -> pl.DataFrame:
        """A row a pair and setting, in percent and points: `analysis.measures.gains.gains` says what is in it."""
        from analysis.measures.gains import gains

        return gains(self)

    def curves(self) -> pl.DataFrame:
        """A row an epoch, read now: `analysis.read.curves.curves`, which says what is in it."""
        from analysis.read.curves import curves

        return curves(self)

    @abstractmethod
    def tables(self) -> Document:
        """What `kd-analysis table` shows."""

    def __repr__(self) -> str:
        done = self.cells.filter(pl.col("status") == "done").height
        return f"<{self.title} in {self.reader}: {done} of {self.cells.height} teachers and cells done>"

    def _repr_html_(self) -> str:
        return self.tables().opening()._repr_html_()


@dataclass(frozen=True, kw_only=True, repr=False)
class Grid(Records):
    """One grid. storage: the one that its plan lies in."""

    name: str
    storage: str
    spec: dict[str, Any]

    @property
    def called(self) -> str:
        return f"grid {self.name}"

    @property
    def title(self) -> str:
        return _cut(self.name, self.only)

    def tables(self) -> Document:
        from analysis.tables.grid_tables import tables

        return tables(self)

    def pictures(self) -> list[Picture]:
        """Those that there is something to show in."""
        from analysis.plots import pictures

        return pictures(self)

    def report(self) -> Page:
        """The whole page, as HTML."""
        from analysis.report import report

        return report(self)


@dataclass(frozen=True, kw_only=True, repr=False)
class Grids(Records):
    """Several grids; specs by the name that the column `grid` has, the grid launched last being last."""

    specs: dict[str, dict[str, Any]]

    @property
    def called(self) -> str:
        return "1 grid" if len(self.specs) == 1 else f"{len(self.specs)} grids"

    @property
    def title(self) -> str:
        return _cut(self.called, self.only)

    def tables(self) -> Document:
        from analysis.tables.grids_tables import many_tables

        return many_tables(self)


def _cut(what: str, only: Sequence[str]) -> str:
    return f"{what}, only {', '.join(only)}" if only else what
