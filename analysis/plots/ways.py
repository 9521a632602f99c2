"""The ways of training that pictures set beside one another: alone, and from each teacher."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from analysis.measures.gains import crossed
from analysis.measures.selection import has_validation, select
from analysis.plots.picture import pair
from analysis.read.grids import Grid
from analysis.read.schema import AXES
from analysis.shown import setting, with_setting
from analysis.stats import MeanWithInterval, summarize
from grid.contract.text import on_one_line

ALONE = "alone"
MOST = 12  # more cannot be told apart
KEYS = ["teacher", "student", *AXES]


@dataclass(frozen=True)
class Ways:
    """The ways of training that a grid's pictures show."""

    cells: pl.DataFrame
    """The done cells that are drawn, with `way`, an index into names."""
    names: list[str]
    """The first is alone."""
    teachers: dict[str, int]
    """The way whose colour a teacher takes."""
    note: str
    """Which settings are drawn where some are crossed."""

    def drawn(self) -> list[int]:
        return sorted(self.cells["way"].unique())


@dataclass(frozen=True)
class Point:
    """A student trained in one way: what its seeds gave."""

    student: str
    way: int
    values: list[float]
    summary: MeanWithInterval


def ways(grid: Grid, frame: pl.DataFrame) -> Ways | str:
    """Alone and from each teacher. Of crossed settings what validation selects; where nothing may be selected each
    setting is a way, or if these are too many the reason why there is no picture. frame: of `gains`."""
    axes = crossed(frame)
    done = grid.cells.filter(pl.col("kind") == "cell", pl.col("status") == "done")
    if done.is_empty():
        return "no cell is done"
    note = ""
    if axes and has_validation(grid):
        selected = select(frame)
        note = _selected(selected, axes, may_change(frame))
        frame = selected
        axes = []
    labels = [with_setting(f"from {on_one_line(row['teacher'])}", row, axes) for row in frame.iter_rows(named=True)]
    names = [ALONE, *dict.fromkeys(labels)]
    if axes and len(names) - 1 > MOST:
        return (
            f"it would show {len(names) - 1} combinations of {' and '.join(axes)}, of which none may be chosen "
            "without a validation split"
        )
    index = {name: i for i, name in enumerate(names)}
    way = pl.Series("way", [index[label] for label in labels], dtype=pl.Int64)
    distilled = done.join(frame.select(KEYS).with_columns(way), on=KEYS, how="inner", nulls_equal=True)
    baseline = done.filter(pl.col("mode") == "baseline").with_columns(way=pl.lit(0, dtype=pl.Int64))
    teachers: dict[str, int] = {}
    for teacher, i in zip(frame["teacher"], way, strict=True):
        teachers.setdefault(teacher, i)
    for teacher in grid.cells.filter(pl.col("kind") == "teacher")["teacher"]:
        teachers.setdefault(teacher, max(teachers.values(), default=0) + 1)
    return Ways(pl.concat([baseline, distilled]), names, teachers, note)


def points(ways: Ways, students: list[str], column: str, *, scale: float) -> list[Point]:
    """By student and way, in order, where there is something."""
    known = ways.cells.filter(pl.col(column).is_not_null(), pl.col(column).is_finite())
    found = []
    for student in students:
        for way in range(len(ways.names)):
            same = known.filter(pl.col("student") == student, pl.col("way") == way).sort("seed")
            values = [round(scale * value, 9) for value in same[column]]
            if values:
                found.append(Point(student, way, values, summarize(values)))
    return found


def students(grid: Grid) -> list[str]:
    return grid.cells["student"].drop_nulls().unique(maintain_order=True).to_list()


def of_teachers(grid: Grid, column: str, *, scale: float) -> dict[str, float]:
    """What each teacher that is done has itself."""
    done = grid.cells.filter(pl.col("kind") == "teacher", pl.col("status") == "done", pl.col(column).is_finite())
    return {teacher: scale * value for teacher, value in done.select("teacher", column).iter_rows()}


def may_change(frame: pl.DataFrame) -> str:
    """That a selection from these gains is not final, while their settings stand on unequal numbers of seeds."""
    return (
        "" if frame["val_n"].n_unique() == 1 else ", which may change while settings stand on unequal numbers of seeds"
    )


def _selected(frame: pl.DataFrame, axes: list[str], but: str) -> str:
    what = f"Of the crossed {' and '.join(axes)} each pair shows what validation selects{but}"
    if frame.is_empty():
        return f"{what}: nothing yet."
    several = frame.height > 6
    said = "" if several else ": " + "; ".join(f"{pair(row)} {setting(row, axes)}" for row in frame.to_dicts())
    return f"{what}{said}."


def limits(found: list[Point], others: list[float], *, floor: float, ceiling: float) -> tuple[float, float]:
    """Of an axis: all values, and of the intervals as much as does not squeeze these: those of two seeds are huge."""
    values = [value for point in found for value in [*point.values, point.summary.mean]] + others
    low, high = min(values), max(values)
    room = 1.5 * (high - low)
    ends = [end for point in found for end in (point.summary.low, point.summary.high) if end is not None]
    low = max(floor, min([low, *(max(end, low - room) for end in ends)]))
    high = min(ceiling, max([high, *(min(end, high + room) for end in ends)]))
    margin = 0.03 * (high - low) or 0.02 * abs(high) or 1.0
    return max(floor, low - margin), min(ceiling, high + margin)


def is_cut(end: float | None, low: float, high: float) -> bool:
    return end is not None and not low <= end <= high
