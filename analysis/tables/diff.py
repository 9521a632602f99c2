"""Two grids beside each other, or one before and now: accuracies, gains, and what else differs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from analysis.document import Document, Heading, Items, Note, Part, Table
from analysis.errors import AnalysisError
from analysis.measures.diff import Sides, both_gains, changes, differences, fallen, match
from analysis.measures.gains import crossed
from analysis.read.grids import Grid
from analysis.read.schema import AXES
from analysis.shown import UNKNOWN, FrameRow, pair, setting, shown_gain, title, value
from analysis.tables.standing import unfinished

LISTED = 20  # of what is on one side only


@dataclass(frozen=True)
class Difference:
    document: Document
    fallen: list[str]
    """A line for each mean that fell by more than was allowed."""
    unjudged: int
    """Teachers and cells that were done before and have no result now."""


def difference(before: Grid, now: Grid, fail_below: float | None = None) -> Difference:
    """fail_below: by how many points a mean may fall. Raises AnalysisError where it is given and nothing is there of
    which that could be said."""
    sides = match(before, now)
    frame = differences(sides)
    if fail_below is not None and frame.is_empty():
        raise AnalysisError(
            f"--fail-below: {_called(before)} and {_called(now)} have no teacher or cell in common that is done in both"
        )
    fell = [] if fail_below is None else [_fell(row) for row in fallen(frame, fail_below).iter_rows(named=True)]
    lost = sum(
        row["status"] == "done" for row in [*sides.only_before, *(one.before for one in sides.both if not one.done)]
    )
    changed = changes(before, now)
    parts: list[Part] = [Note(f"{_called(before)}.", lead="Before"), Note(f"{_called(now)}.", lead="Now")]
    parts += [*_other_data(changed), _accuracies(frame), Note(_how(frame)), *_judged(frame, fail_below, fell)]
    parts += [*_gains(before, now), *_changed(changed), *_one_sided(sides)]
    for grid, side in ((before, "before"), (now, "now")):
        notes = [part for part in unfinished(grid) if isinstance(part, Note)]
        parts += [replace(note, lead=f"{note.lead}, {side}") for note in notes]
    what = before.name if before.name == now.name else f"{before.name} and {now.name}"
    return Difference(Document(f"{what}, before and now", parts), fell, lost)


def _called(grid: Grid) -> str:
    return f"{grid.title} in {grid.reader}"


def _name(row: FrameRow) -> str:
    if row["kind"] == "teacher":
        return f"teacher {row['teacher']}"
    if row["teacher"] is None:
        return f"{row['student']} alone"
    return ", ".join(filter(None, [pair(row), setting(row, [*AXES])]))


def _accuracies(frame: pl.DataFrame) -> Table:
    varying = crossed(frame)
    header = ["Teacher", "Student", *(axis.capitalize() for axis in varying)]
    names = len(header)
    header += ["Before", "Now", "Difference", "By seed", "n", "Same stages"]
    lines = []
    for row in frame.iter_rows(named=True):
        by_seed = json.loads(row["differences_points"])
        shown = "" if row["kind"] == "teacher" else ", ".join(f"{seed}: {_points(of)}" for seed, of in by_seed.items())
        # Tables say "alone" where there is no teacher.
        labels = [row["teacher"] or "alone", row["student"] or "", *(value(row[axis]) for axis in varying)]
        means = [f"{row[f'{side}_mean_percent']:.2f}" for side in ("before", "now")]
        lines.append([*labels, *means, _difference(row), shown, f"{row['n']}", f"{row['same_stages']}"])
    return Table("differences", frame, header, lines, [i >= names for i, _ in enumerate(header)])


def points(many: float) -> str:
    return f"{many:g} point" if many == 1 else f"{many:g} points"


def _points(of: float) -> str:
    return f"{round(of, 2) + 0.0:+.2f}"  # what shows as 0 is neither above nor below


def _difference(row: FrameRow) -> str:
    low, high = row["difference_low_points"], row["difference_high_points"]
    return _points(row["difference_mean_points"]) + ("" if low is None else f" [{low:+.2f}, {high:+.2f}]")


def _how(frame: pl.DataFrame) -> str:
    if frame.is_empty():
        return "No teacher or cell is done in both."
    text = (
        "Top-1 on the test split in percent, last epoch: means over the n seeds that are done in both. Difference: now "
        "minus before, paired by seed, in points"
    )
    if frame["difference_low_points"].count():
        text += (
            ", with its 95 % t interval. Each interval stands for itself, without a correction for their number: of "
            "twenty where nothing changed one leaves out 0"
        )
    return (
        f"{text}. Same stages: of how many the id is the same, so that nothing that was asked for differs, and any "
        "difference comes from where it ran, or from the code."
    )


def _judged(frame: pl.DataFrame, fail_below: float | None, fell: Sequence[str]) -> list[Part]:
    if fail_below is None:
        return []
    if fell:
        return [Note(f"by more than {points(fail_below)}:", lead="Fallen"), Items(fell)]
    return [Note(f"None of {frame.height} means fell by more than {points(fail_below)}.")]


def _fell(row: FrameRow) -> str:
    means = [f"{row[f'{side}_mean_percent']:.2f}" for side in ("before", "now")]
    return f"{_name(row)}: {means[0]} to {means[1]}, {_difference(row)} points (n = {row['n']})"


def _other_data(changed: pl.DataFrame) -> list[Part]:
    words = changed.filter(pl.col("what").is_in(["dataset.name", "recorded.dataset_fingerprint"]))
    text = "the two did not learn from and were not tested on the same images, so their accuracies do not compare."
    return [Note(text, lead="Other data")] if words.height else []


def _gains(before: Grid, now: Grid) -> list[Part]:
    both = both_gains(before, now)
    if not both:
        return []
    rows, lines = [], []
    known = [next(filter(None, two)) for two in both]
    varying = [axis for axis in AXES if len({row[axis] for row in known} - {None}) > 1]
    for row, two in zip(known, both, strict=True):
        was, is_ = (None if one is None else one["gain_mean_points"] for one in two)
        change = None if was is None or is_ is None else round(is_ - was, 9)
        rows.append([row["teacher"], row["student"], *(row[axis] for axis in AXES), was, is_, change])
        shown = [UNKNOWN if one is None else shown_gain(one) for one in two]
        labels = [row["teacher"], row["student"], *(value(row[axis]) for axis in varying)]
        lines.append([*labels, *shown, UNKNOWN if change is None else _points(change)])
    figures = ("before_gain_mean_points", "now_gain_mean_points", "change_points")
    texts = dict.fromkeys(("teacher", "student"), pl.String)
    frame = pl.DataFrame(rows, schema={**texts, **AXES, **dict.fromkeys(figures, pl.Float64)}, orient="row")
    names = ["Teacher", "Student", *(axis.capitalize() for axis in varying)]
    header = [*names, "Gain before", "Gain now", "Change"]
    table = Table("gains", frame, header, lines, [i >= len(names) for i, _ in enumerate(header)])
    note = "Each gain, its interval and its mark are those of the grid's own table, over all of its seeds."
    return [Heading("Gains"), table, Note(note)]


def _changed(frame: pl.DataFrame) -> list[Part]:
    heading = Heading("What else differs")
    if frame.is_empty():
        return [heading, Note("Nothing of what the grids ask for, nor of what their records say of where they ran.")]
    lines = [[what, before or UNKNOWN, now or UNKNOWN] for what, before, now in frame.iter_rows()]
    return [heading, Table("changes", frame, ["What", "Before", "Now"], lines, [False] * 3)]


def _one_sided(sides: Sides) -> list[Part]:
    lines = [f"{title(row)}: before only" for row in sides.only_before]
    lines += [f"{title(row)}: now only" for row in sides.only_now]
    lines += [
        f"{title(one.before)}: {one.before['status']} before, {one.now['status']} now"
        for one in sides.both
        if not one.done and (one.before["status"], one.now["status"]) != ("missing", "missing")
    ]
    lines = [f"{line} ({n} times)" if n > 1 else line for line, n in Counter(lines).items()]
    more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return [Heading("On one side only"), Items([*lines[:LISTED], *more])] if lines else []
