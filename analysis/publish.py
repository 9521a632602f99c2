"""Which trained student of a grid is handed out, and the figures that are said of it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.errors import AnalysisError
from analysis.measures.gains import crossed, gains
from analysis.measures.pairs import POINT
from analysis.measures.selection import select
from analysis.read.grids import Grid
from analysis.read.schema import AXES
from analysis.shown import setting, value
from analysis.stats import MeanWithInterval, summarize
from grid.contract.plan import METHOD, NUMBERS


@dataclass(frozen=True)
class Choice:
    """A done cell."""

    grid: str
    spec: dict[str, Any]
    stage_id: str
    student: str
    teacher: str | None
    teacher_top1: float | None
    """A fraction."""
    teacher_parameters: int | None
    seed: int
    setting: str
    """How the setting was chosen, as a clause."""
    seed_why: str
    """How the seed was chosen, as a clause."""
    accuracy: MeanWithInterval
    """Of all done seeds of the setting, in percent."""
    alone: MeanWithInterval | None
    """Of the same student without a teacher, in percent."""
    gain: MeanWithInterval | None
    """Paired by seed, in points."""
    effect: str | None
    """The verdict on it: the column `effect` of `gains`."""


def choose(
    grid: Grid,
    *,
    student: str | None = None,
    teacher: str | None = None,
    mode: str | None = None,
    seed: int | None = None,
    **axes: str | float | None,
) -> Choice:
    """The student (default: the only one), the setting (default: the one that validation selects, or else the only one;
    axes: those of it that are asked for) and the seed (default: the grid's first, never the best). Raises AnalysisError
    where that is none, several or not done."""
    cells = grid.cells.filter(pl.col("kind") == "cell")
    student = _one("student", student, cells["student"].unique(maintain_order=True).to_list(), grid)
    cells = cells.filter(pl.col("student") == student)
    modes = set(cells["mode"])
    mode = mode or ("distilled" if "distilled" in modes else "baseline")
    if mode not in modes:
        raise AnalysisError(f"grid {grid.name} has no {mode} cells: leave --mode out")
    given = {name: asked for name, asked in {"teacher": teacher, **axes}.items() if asked is not None}
    gain: MeanWithInterval | None = None
    effect: str | None = None
    if mode == "baseline":
        if given:
            raise AnalysisError(f"a student trained alone has no {next(iter(given))}: leave --{next(iter(given))} out")
        row: dict[str, Any] = dict.fromkeys(["teacher", *AXES])
        chosen = "the student trained alone"
    else:
        row, chosen = _setting(gains(grid).filter(pl.col("student") == student), given, grid)
        if row["gain_mean_points"] is not None:
            effect = row["effect"]
            gain = MeanWithInterval(
                row["gain_n"], row["gain_mean_points"], None, row["gain_low_points"], row["gain_high_points"]
            )
    seeds = cells["seed"].unique(maintain_order=True).to_list()
    if seed is not None and seed not in seeds:
        raise AnalysisError(f"--seed {seed}: the grid has the seeds {', '.join(map(str, seeds))}")
    why = (
        f"seed {seed}, asked for by number"
        if seed is not None
        else f"seed {seeds[0]}, the first of the experiment, whatever its accuracy"
    )
    seed = seeds[0] if seed is None else seed
    of_setting = _of(cells, mode, row)
    cell = of_setting.filter(pl.col("seed") == seed).row(0, named=True)
    if cell["status"] != "done":
        raise AnalysisError(_not_done(grid, cell))
    teachers = grid.cells.filter(pl.col("kind") == "teacher", pl.col("teacher").eq_missing(row["teacher"])).to_dicts()
    accuracy = _summary(of_setting)
    assert accuracy is not None
    return Choice(
        grid=grid.name,
        spec=grid.spec,
        stage_id=cell["stage_id"],
        student=student,
        teacher=row["teacher"],
        teacher_top1=teachers[0][POINT] if teachers else None,
        teacher_parameters=teachers[0]["parameters"] if teachers else None,
        seed=seed,
        setting=chosen,
        seed_why=why,
        accuracy=accuracy,
        alone=_summary(_of(cells, "baseline", dict.fromkeys(row))) if mode == "distilled" else None,
        gain=gain,
        effect=effect,
    )


def _one(what: str, asked: str | None, there: list[str], grid: Grid) -> str:
    if asked is None and len(there) == 1:
        return there[0]
    if asked is None:
        raise AnalysisError(f"grid {grid.name} has several {what}s: name one with --{what}: {', '.join(there)}")
    if asked not in there:
        raise AnalysisError(f"--{what} {asked}: grid {grid.name} has {', '.join(there)}")
    return asked


def _setting(frame: pl.DataFrame, given: dict[str, Any], grid: Grid) -> tuple[dict[str, Any], str]:
    """The row of `gains` that is meant, and how it came to be meant."""
    wanted = frame
    for name, asked in given.items():
        wanted = wanted.filter(pl.col(name) == asked)
        if wanted.is_empty():
            there = frame[name].unique(maintain_order=True).to_list()
            raise AnalysisError(f"--{name} {value(asked)}: the student's settings have {', '.join(map(value, there))}")
    if len(wanted) == 1:
        by_name = f"the setting asked for: {_named(wanted.row(0, named=True))}"
        return wanted.row(0, named=True), "the only distilled setting trained" if len(frame) == 1 else by_name
    # Of each teacher the selected one, and of those the best by validation again: rounded, and the first of equals.
    selected = select(wanted).sort(pl.col("val_mean_percent").round(9), descending=True, maintain_order=True)
    if selected.is_empty():
        flags = "; ".join(_flags(row, crossed(frame)) for row in wanted.iter_rows(named=True))
        raise AnalysisError(
            f"grid {grid.name} has several settings of this student and no validation results to choose one by: name "
            f"one: {flags}"
        )
    row = selected.row(0, named=True)
    asked = f" among those with {', '.join(f'{name} {value(v)}' for name, v in given.items())}" if given else ""
    return row, (
        f"the setting with the best validation accuracy of {selected['settings'].sum()}{asked}: {_named(row)} (mean "
        f"top-1 on the validation split {row['val_mean_percent']:.2f} %, n = {row['val_n']}), with the test split "
        "taking no part"
    )


def _named(row: dict[str, Any]) -> str:
    return f"teacher {value(row['teacher'])}, {setting(row, [axis for axis in AXES if axis != METHOD])}"


def _flags(row: dict[str, Any], axes: Sequence[str]) -> str:
    named = ("teacher", *(axis for axis in AXES if axis in NUMBERS or axis in axes))
    return " ".join(f"--{name} {shlex.quote(value(row[name]))}" for name in named if row[name] is not None)


def _of(cells: pl.DataFrame, mode: str, row: dict[str, Any]) -> pl.DataFrame:
    """All seeds of one setting."""
    same = [pl.col(name).eq_missing(pl.lit(row[name], dtype=cells.schema[name])) for name in ("teacher", *AXES)]
    return cells.filter(pl.col("mode") == mode, *same)


def _summary(cells: pl.DataFrame) -> MeanWithInterval | None:
    done = cells.filter(pl.col("status") == "done")[POINT].drop_nulls()
    return summarize([round(100 * figure, 9) for figure in done]) if len(done) else None


def _not_done(grid: Grid, cell: dict[str, Any]) -> str:
    from_teacher = f" from {cell['teacher']}" if cell["teacher"] is not None else " alone"
    what = f"{cell['student']}{from_teacher}, seed {cell['seed']}"
    unreadable = next((line for line in grid.problems if cell["stage_id"] in line), None)
    if unreadable is not None:
        return f"{what}: its record cannot be read: {unreadable}"
    if cell["status"] == "failed":
        return f"{what} failed: {cell['error']}: launch the grid again"
    return f"{what} is not done: launch the grid again to finish it"
