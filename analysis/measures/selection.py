"""Of crossed settings: which one validation selects, and the gains on their grid."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from analysis.measures.gains import crossed
from analysis.measures.pairs import VAL
from analysis.read.grids import Grid
from analysis.read.schema import AXES
from grid.contract.plan import NUMBERS


def has_validation(grid: Grid) -> bool:
    """Whether the grid holds out a validation split."""
    return bool(grid.spec["dataset"].get("val_size")) or grid.cells[VAL].count() > 0


def select(frame: pl.DataFrame) -> pl.DataFrame:
    """Of each teacher and student, the row of `gains` with the highest val_mean_percent, the first of equals; with
    `settings`, how many have one, and `equals`, how many have that one. Pairs of which none has are absent."""
    known = frame.filter(pl.col("val_mean_percent").is_not_null())
    return highest(known, "val_mean_percent").join(
        known.group_by("teacher", "student").agg(settings=pl.len()), on=["teacher", "student"], maintain_order="left"
    )


def highest(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Of each teacher and student, the row of `gains` with the highest of a column, the first of equals; with `equals`,
    how many have that one."""
    # Rounded: equal means of other accuracies differ in their last bits.
    rounded = frame.filter(pl.col(column).is_not_null()).with_columns(key=pl.col(column).round(9))
    found = rounded.filter(pl.col("key") == pl.col("key").max().over("teacher", "student")).with_columns(
        equals=pl.len().over("teacher", "student")
    )
    return found.unique(["teacher", "student"], keep="first", maintain_order=True).drop("key")


@dataclass(frozen=True)
class Crossing:
    """Gains by two numeric axes that are crossed."""

    down: str
    """The axis that has a row a value."""
    across: str
    """The axis that has a column a value."""
    others: list[str]
    """The other axes that are crossed."""
    maps: list[pl.DataFrame]
    """Of a frame of `gains`, the settings that have both axes: those alike in all else together."""


def crossing(frame: pl.DataFrame) -> Crossing | None:
    """None where no two numeric axes are crossed; of more the first two."""
    axes = crossed(frame)
    numbers = [axis for axis in axes if axis in NUMBERS]
    if len(numbers) < 2:
        return None
    down, across = numbers[:2]
    both = frame.filter(pl.col(down).is_not_null(), pl.col(across).is_not_null())
    rest = [axis for axis in AXES if axis not in (down, across)]
    maps = [rows for _, rows in both.group_by("teacher", "student", *rest, maintain_order=True)]
    return Crossing(down, across, [axis for axis in rest if axis in axes], maps)
