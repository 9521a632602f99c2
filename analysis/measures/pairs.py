"""The accuracies of each pair and setting by seed, by which gains are paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.read.grids import Records
from analysis.read.schema import AXES
from analysis.stats import paired_gains

KEYS = ("grid", "teacher", "student", *AXES)
POINT = "test_top1_last"
BEST_TEST = "best_test_top1"
VAL = "val_top1_last"


@dataclass(frozen=True)
class Pair:
    """A teacher, student and setting of a grid with the accuracies in percent by seed, as far as done."""

    planned: dict[str, Any]
    """The values of KEYS, as the plan has them."""
    stages: frozenset[str]
    """Ids of the cells that the accuracies are of."""
    baseline: dict[int, float]
    distilled: dict[int, float]
    val: dict[int, float]

    @property
    def gains(self) -> dict[int, float]:
        return paired_gains(self.distilled, self.baseline)


def pairs(records: Records, *, point: str = POINT) -> list[Pair]:
    """Each grid's teachers, students and settings, in its order."""
    cells = records.cells.filter(pl.col("kind") == "cell")
    done = cells.filter(pl.col("status") == "done", pl.col(point).is_not_null())
    of_baselines, of_distilled = (done.filter(pl.col("mode") == mode) for mode in ("baseline", "distilled"))
    baseline = by_seed(of_baselines, ["grid", "student"], point)
    distilled = by_seed(of_distilled, KEYS, point)
    val = by_seed(of_distilled.filter(pl.col(VAL).is_not_null()), KEYS, VAL)
    ids = _stage_ids(of_baselines, ["grid", "student"]) | _stage_ids(of_distilled, KEYS)
    planned = cells.filter(pl.col("mode") == "distilled").unique(KEYS, maintain_order=True, keep="first").select(KEYS)
    teachers = records.cells.filter(pl.col("kind") == "teacher").select("grid", "teacher")
    grids = {grid: i for i, grid in enumerate(records.cells["grid"].unique(maintain_order=True))}
    order = {key: i for i, key in enumerate(teachers.iter_rows())}

    def place(row: Mapping[str, Any]) -> tuple[int, int]:
        return grids[row["grid"]], order.get((row["grid"], row["teacher"]), len(order))

    found = []
    for row in sorted(planned.iter_rows(named=True), key=place):
        key = tuple(row.values())
        student = (row["grid"], row["student"])
        stages = frozenset(ids.get(key, [])) | frozenset(ids.get(student, []))
        found.append(Pair(row, stages, baseline.get(student, {}), distilled.get(key, {}), val.get(key, {})))
    return found


def _stage_ids(cells: pl.DataFrame, keys: Sequence[str]) -> dict[tuple[Any, ...], list[str]]:
    found = cells.group_by(keys).agg("stage_id")
    return {tuple(key): ids for *key, ids in found.iter_rows()}


def by_seed(cells: pl.DataFrame, keys: Sequence[str], column: str) -> dict[tuple[Any, ...], dict[int, float]]:
    """Of each key the percent by seed, without the last bits of 100 * 0.913, which would make equal accuracies
    differ."""
    found: dict[tuple[Any, ...], dict[int, float]] = {}
    for *key, seed, value in cells.select(*keys, "seed", column).iter_rows():
        found.setdefault(tuple(key), {})[int(seed)] = round(100 * float(value), 9)
    return found
