"""Grids as they stand: what is read of them, as frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.read.storage import Reader


@dataclass(frozen=True, kw_only=True, repr=False)
class Records(ABC):
    """What is read of one grid or of several. In both frames status is done, failed, running or missing, and progress,
    of what is running, a fraction."""

    cells: pl.DataFrame
    """One row a planned teacher or cell of a grid: the plan's labels joined with the record's facts, accuracies as
    fractions."""
    stages: pl.DataFrame
    """One row a stage of any kind, likewise."""
    problems: list[str]
    """What could not be read so far, a line each."""
    reader: Reader
    """Of the storages, for what is read only when it is asked for."""
    only: tuple[str, ...] = ()
    """What this was cut down to, where it is a part."""
    whole: Records | None = None
    """What it is a part of."""

    @property
    @abstractmethod
    def called(self) -> str: ...

    @property
    @abstractmethod
    def title(self) -> str: ...

    def __repr__(self) -> str:
        done = self.cells.filter(pl.col("status") == "done").height
        return f"<{self.title} in {self.reader}: {done} of {self.cells.height} teachers and cells done>"


@dataclass(frozen=True, kw_only=True, repr=False)
class Grid(Records):
    """One grid."""

    name: str
    storage: str
    """The one that its plan lies in."""
    spec: dict[str, Any]

    @property
    def called(self) -> str:
        return f"grid {self.name}"

    @property
    def title(self) -> str:
        return _cut(self.name, self.only)


@dataclass(frozen=True, kw_only=True, repr=False)
class Grids(Records):
    """Several grids."""

    specs: dict[str, dict[str, Any]]
    """By the name that the column `grid` has, the grid launched last being last."""

    @property
    def called(self) -> str:
        return "1 grid" if len(self.specs) == 1 else f"{len(self.specs)} grids"

    @property
    def title(self) -> str:
        return _cut(self.called, self.only)


def _cut(what: str, only: Sequence[str]) -> str:
    return f"{what}, only {', '.join(only)}" if only else what
