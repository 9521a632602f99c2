"""Two grids, or one grid twice: what each cell and teacher had before and has now, paired."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.measures.gains import gains
from analysis.measures.pairs import POINT
from analysis.read.grids import Grid
from analysis.read.schema import AXES
from analysis.shown import FrameRow
from analysis.stats import paired_gains, show_spread, summarize
from grid.contract.parsing import parse_object

GROUP = ("kind", "mode", "teacher", "student", *AXES)
LABELS = (*GROUP, "seed")
PAIR = ("teacher", "student", *AXES)

_TEXTS = dict.fromkeys(("kind", "mode", "teacher", "student"), pl.String)
DIFFERENCES_SCHEMA: dict[str, type[pl.DataType]] = {
    **_TEXTS,
    **AXES,
    "before_mean_percent": pl.Float64,
    "now_mean_percent": pl.Float64,
    "n": pl.Int64,
    "same_stages": pl.Int64,
    "difference_mean_points": pl.Float64,
    "difference_low_points": pl.Float64,
    "difference_high_points": pl.Float64,
    "differences_points": pl.String,
}

# What records say of where and of what they were computed, beside what the grids ask for.
RECORDED = ("dataset_fingerprint", "code_version", "device", "precision")
_NOT_COMPUTED = ("name", "description", "published")  # of a spec


@dataclass(frozen=True)
class Matched:
    """A teacher or cell of both grids."""

    before: FrameRow
    now: FrameRow

    @property
    def done(self) -> bool:
        return all(one["status"] == "done" and one[POINT] is not None for one in (self.before, self.now))


@dataclass(frozen=True)
class Sides:
    """The teachers and cells of two grids, as rows of `Grid.cells`."""

    both: list[Matched]
    only_before: list[FrameRow]
    only_now: list[FrameRow]


def match(before: Grid, now: Grid) -> Sides:
    """Paired where the stages are the same, and else where the labels are: student, teacher, mode, setting and seed."""
    rows_before, rows_now = (grid.cells.to_dicts() for grid in (before, now))
    by_id = {row["stage_id"]: i for i, row in reversed([*enumerate(rows_now)])}
    by_label = {_labels(row): i for i, row in reversed([*enumerate(rows_now)])}
    ids_before = {row["stage_id"] for row in rows_before}
    both: list[Matched] = []
    only_before: list[FrameRow] = []
    taken: set[int] = set()
    for row in rows_before:
        at = by_label.get(_labels(row))
        if at is None or rows_now[at]["stage_id"] != row["stage_id"]:
            same = by_id.get(row["stage_id"])
            # What is the same stage as another one before belongs to that.
            free = at is not None and rows_now[at]["stage_id"] not in ids_before
            at = same if same is not None else at if free else None
        if at is None or at in taken:
            only_before.append(row)
        else:
            taken.add(at)
            both.append(Matched(row, rows_now[at]))
    return Sides(both, only_before, [row for i, row in enumerate(rows_now) if i not in taken])


def _labels(row: FrameRow) -> tuple[Any, ...]:
    return tuple(row[name] for name in LABELS)


def differences(sides: Sides) -> pl.DataFrame:
    """One row a teacher, student alone, and student by teacher and setting, called as before: the mean accuracies of
    the n seeds that are done in both, in percent, and now minus before, in points.

    difference_low_points and difference_high_points: Student's t interval of 95 % of the mean difference, paired by
    seed; null for one seed, and where all differences are equal. differences_points: each seed's as JSON, of a teacher
    under "". same_stages: of how many the stage is the same in both, so that only how or where it was run can differ.
    """
    groups: dict[tuple[Any, ...], list[Matched]] = {}
    for one in sides.both:
        if one.done:
            groups.setdefault(tuple(one.before[name] for name in GROUP), []).append(one)
    rows = []
    for key, matched in groups.items():
        percents = [{i: round(100 * one[POINT], 9) for i, one in enumerate(side)} for side in _sides(matched)]
        found = [*paired_gains(percents[1], percents[0]).values()]
        mean = summarize(found)
        seeds = ["" if one.before["seed"] is None else str(one.before["seed"]) for one in matched]
        row = dict(zip(GROUP, key, strict=True))
        row |= {f"{name}_mean_percent": summarize([*of.values()]).mean for name, of in _named(percents)}
        row |= {"n": mean.n, "difference_mean_points": mean.mean}
        if show_spread(found):
            row |= {"difference_low_points": mean.low, "difference_high_points": mean.high}
        row["same_stages"] = sum(one.before["stage_id"] == one.now["stage_id"] for one in matched)
        row["differences_points"] = json.dumps(dict(zip(seeds, found, strict=True)))
        rows.append(row)
    return pl.DataFrame(rows, schema=DIFFERENCES_SCHEMA)


def _sides(matched: list[Matched]) -> tuple[list[FrameRow], list[FrameRow]]:
    return [one.before for one in matched], [one.now for one in matched]


def _named(percents: list[dict[int, float]]) -> Iterator[tuple[str, dict[int, float]]]:
    return zip(("before", "now"), percents, strict=True)


def fallen(frame: pl.DataFrame, points: float) -> pl.DataFrame:
    """The rows of `differences` whose mean fell by more than so many points."""
    return frame.filter(pl.col("difference_mean_points").round(9) < -points)


def both_gains(before: Grid, now: Grid) -> list[tuple[FrameRow | None, FrameRow | None]]:
    """The rows of `gains` of each grid, paired by teacher, student and setting; None where a grid has no such pair."""
    frames = [{tuple(row[name] for name in PAIR): row for row in gains(grid).to_dicts()} for grid in (before, now)]
    return [(frames[0].get(key), frames[1].get(key)) for key in dict.fromkeys([*frames[0], *frames[1]])]


def changes(before: Grid, now: Grid) -> pl.DataFrame:
    """One row a value that differs: of what the grids ask for (a spec's keys, joined by dots), and of what the records
    of their teachers and cells say (`recorded.device`). As text; null where one side says nothing."""
    told = [{**dict(_flat(grid.spec)), **_recorded(grid)} for grid in (before, now)]
    keys = dict.fromkeys([*told[0], *told[1]])
    rows = [(key, told[0].get(key), told[1].get(key)) for key in keys if told[0].get(key) != told[1].get(key)]
    return pl.DataFrame(rows, schema=dict.fromkeys(("what", "before", "now"), pl.String), orient="row")


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """'recipe.epochs': '32', 'teachers.ViT-T.args.depth': '4'. Models are told apart by their labels."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            if place or name not in _NOT_COMPUTED:
                yield from _flat(inner, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list) and value and all(isinstance(one, Mapping) and "name" in one for one in value):
        for one in value:
            yield from _flat(one, f"{place}.{one.get('label') or one['name']}")
    else:
        text = json.dumps(value, ensure_ascii=False)
        yield (
            place,
            text if len(text) <= 80 else f"{text[:40]}... (sha256 {hashlib.sha256(text.encode()).hexdigest()[:8]})",
        )


def _recorded(grid: Grid) -> dict[str, str]:
    done = grid.cells.filter(pl.col("status") == "done")
    found = {name: {str(value) for value in done[name].drop_nulls()} for name in RECORDED}
    for text in done["versions"].drop_nulls().unique():
        try:
            for package, version in parse_object(text).items():
                found.setdefault(f"versions.{package}", set()).add(str(version))
        except ValueError:  # what a record says of itself in no known way
            found.setdefault("versions", set()).add(text)
    return {f"recorded.{name}": ", ".join(sorted(values)) for name, values in found.items() if values}
