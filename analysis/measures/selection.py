"""Of crossed settings (method, temperature, alpha): which one validation selects, and the gains on their grid."""

from __future__ import annotations

from typing import Any

import polars as pl

from analysis.document import Items, Note, Part, Table
from analysis.measures.gains import AXES, POINT, VAL, crossed
from analysis.read.grids import Grid
from analysis.shown import pair, setting, shown_accuracy, shown_gain, shown_n, value


def has_validation(grid: Grid) -> bool:
    """Whether the grid holds out a validation split."""
    return bool(grid.spec["dataset"].get("val_size")) or grid.cells[VAL].count() > 0


def select(frame: pl.DataFrame) -> pl.DataFrame:
    """Of each teacher and student, the row of `gains` with the highest val_mean_percent, the first of equals; with
    `settings`, how many have one, and `equals`, how many have that one. Pairs of which none has are absent."""
    known = frame.filter(pl.col("val_mean_percent").is_not_null())
    return _highest(known, "val_mean_percent").join(
        known.group_by("teacher", "student").agg(settings=pl.len()), on=["teacher", "student"], maintain_order="left"
    )


def _highest(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    # Rounded: equal means of other accuracies differ in their last bits.
    rounded = frame.filter(pl.col(column).is_not_null()).with_columns(key=pl.col(column).round(9))
    highest = rounded.filter(pl.col("key") == pl.col("key").max().over("teacher", "student")).with_columns(
        equals=pl.len().over("teacher", "student")
    )
    return highest.unique(["teacher", "student"], keep="first", maintain_order=True).drop("key")


def selection_section(grid: Grid, frame: pl.DataFrame) -> list[Part]:
    """What validation selects in a frame of `gains`, or that nothing may be; nothing where nothing is crossed."""
    axes = crossed(frame)
    if not axes:
        return []
    if not has_validation(grid):
        done = grid.cells[POINT].count() > 0
        warning = (
            f"this grid crosses {' and '.join(axes)} without a validation split, and nothing may be chosen by the test "
            "column. Give dataset.val_size to choose."
        )
        return [Note(warning, lead="Nothing is selected")] if done else []
    selected = select(frame)
    if selected.is_empty():
        return []
    best = _highest(frame, "distilled_mean_percent").rows_by_key(["teacher", "student"], named=True, unique=True)
    lines = [_selected(row, best[row["teacher"], row["student"]], axes) for row in selected.iter_rows(named=True)]
    what = (
        "Val: the distilled students' mean top-1 on the validation split at the last epoch, in percent; it selects. "
        "The accuracy and gain of what it selected are on test, which took no part; but they are of the very runs that "
        "were selected, lucky ones among them: new seeds of the selected setting give its gain without that. Choosing "
        "the best of many settings by test itself is more optimistic still."
    )
    counts = sorted(set(frame["val_n"]))
    if len(counts) > 1:
        what += f" The settings stand on {counts[0]} to {counts[-1]} seeds so far: the selection may change."
    return [Note(what), Items(lines)]


def _selected(row: dict[str, Any], best: dict[str, Any], axes: list[str]) -> str:
    equals, of = row["equals"], f"of {row['settings']} settings"
    tie = f"the first of {equals} with the highest, {of}" if equals < row["settings"] else f"as all {of[3:]} have"
    chosen = (
        f"Selected on validation: {pair(row)} with {setting(row, axes)} (val {row['val_mean_percent']:.2f}, "
        f"{tie if equals > 1 else f'the highest {of}'}). On test: {shown_accuracy(row, 'distilled')}, gain "
        f"{shown_gain(row)}. "
    )
    if all(row[axis] == best[axis] for axis in axes):
        return f"{chosen}The best by test, an optimistic choice, would be the same."
    return (
        f"{chosen}The best by test, an optimistic choice, would be {setting(best, axes)}: "
        f"{shown_accuracy(best, 'distilled')}, gain {shown_gain(best)}."
    )


def gain_grids(frame: pl.DataFrame) -> list[Table]:
    """Where temperature and alpha are both crossed, the gains of each pair and method: a row a temperature, a column
    an alpha."""
    axes = crossed(frame)
    if not {"temperature", "alpha"} <= set(axes):
        return []
    parts: list[Table] = []
    frame, ways = (
        frame.filter(pl.col("temperature").is_not_null(), pl.col("alpha").is_not_null()),
        ["method", "setting"],
    )
    for number, (_, rows) in enumerate(frame.group_by("teacher", "student", *ways, maintain_order=True), start=1):
        cells = {(row["temperature"], row["alpha"]): shown_gain(row, interval=False) for row in rows.to_dicts()}
        temperatures, alphas = (rows[axis].unique(maintain_order=True).to_list() for axis in ("temperature", "alpha"))
        first = rows.row(0, named=True)
        told = setting(first, [way for way in ways if way in axes])
        method = f", {told}" if told else ""
        lines = [[value(t), *(cells.get((t, alpha), "") for alpha in alphas)] for t in temperatures]
        header = ["Temperature", *(f"alpha {value(alpha)}" for alpha in alphas)]
        title = f"Gain of {pair(first)}{method} by temperature and alpha, in points ({shown_n(rows)}):"
        figures = rows.select(
            "teacher", "student", *AXES, "gain_mean_points", "gain_low_points", "gain_high_points", "gain_n", "effect"
        )
        parts.append(Table(f"settings-{number}", figures, header, lines, [True for _ in header], title=title))
    return parts


def method_tables(frame: pl.DataFrame) -> list[Table]:
    """Where methods are crossed, their gains side by side: a row a pair (and setting), a column a method. None where
    each method has settings of its own: none would stand beside another."""
    if "method" not in crossed(frame):
        return []
    others = [axis for axis in crossed(frame) if axis != "method"]
    methods = frame["method"].unique(maintain_order=True).to_list()
    lines = []
    groups = [rows for _, rows in frame.group_by("teacher", "student", *others, maintain_order=True)]
    if all(rows.height == 1 for rows in groups):
        return []
    for rows in groups:
        by_method = {row["method"]: shown_gain(row) for row in rows.to_dicts()}
        first = rows.row(0, named=True)
        named = [pair(first), *(value(first[axis]) for axis in others)]
        lines.append([*named, *(by_method.get(method, "") for method in methods)])
    header = ["Pair", *(axis.capitalize() for axis in others), *methods]
    right = [i > 0 for i, _ in enumerate(header)]
    return [Table("methods", frame, header, lines, right, title=f"Gain by method, in points ({shown_n(frame)}):")]
