"""What is said of crossed settings: what validation selects, the gains by two axes, and methods side by side."""

from __future__ import annotations

from typing import Any

import polars as pl

from analysis.document import Items, Note, Part, Table
from analysis.measures.gains import crossed
from analysis.measures.pairs import POINT
from analysis.measures.selection import crossing, has_validation, highest, select
from analysis.read.grids import Grid
from analysis.read.schema import AXES
from analysis.shown import pair, setting, shown_accuracy, shown_gain, shown_n, value, with_setting
from grid.contract.plan import METHOD


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
    best = highest(frame, "distilled_mean_percent").rows_by_key(["teacher", "student"], named=True, unique=True)
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
    """Where two numeric axes are crossed, the gains of each pair by them."""
    found = crossing(frame)
    if found is None:
        return []
    parts: list[Table] = []
    for number, rows in enumerate(found.maps, start=1):
        cells = {(row[found.down], row[found.across]): shown_gain(row, interval=False) for row in rows.to_dicts()}
        downs, acrosses = (rows[axis].unique(maintain_order=True).to_list() for axis in (found.down, found.across))
        first = rows.row(0, named=True)
        lines = [[value(down), *(cells.get((down, across), "") for across in acrosses)] for down in downs]
        header = [found.down.capitalize(), *(f"{found.across} {value(across)}" for across in acrosses)]
        called = with_setting(pair(first), first, found.others)
        title = f"Gain of {called} by {found.down} and {found.across}, in points ({shown_n(rows)}):"
        figures = rows.select(
            "teacher", "student", *AXES, "gain_mean_points", "gain_low_points", "gain_high_points", "gain_n", "effect"
        )
        parts.append(Table(f"settings-{number}", figures, header, lines, [True for _ in header], title=title))
    return parts


def method_tables(frame: pl.DataFrame) -> list[Table]:
    """Where methods are crossed, their gains side by side: a row a pair (and setting), a column a method. None where
    each method has settings of its own: none would stand beside another."""
    if METHOD not in crossed(frame):
        return []
    others = [axis for axis in crossed(frame) if axis != METHOD]
    methods = frame[METHOD].unique(maintain_order=True).to_list()
    lines = []
    groups = [rows for _, rows in frame.group_by("teacher", "student", *others, maintain_order=True)]
    if all(rows.height == 1 for rows in groups):
        return []
    for rows in groups:
        by_method = {row[METHOD]: shown_gain(row) for row in rows.to_dicts()}
        first = rows.row(0, named=True)
        named = [pair(first), *(value(first[axis]) for axis in others)]
        lines.append([*named, *(by_method.get(method, "") for method in methods)])
    header = ["Pair", *(axis.capitalize() for axis in others), *methods]
    right = [i > 0 for i, _ in enumerate(header)]
    return [Table("methods", frame, header, lines, right, title=f"Gain by method, in points ({shown_n(frame)}):")]
