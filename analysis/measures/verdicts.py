"""What is said of each pair, once: whether it gained or lost, judged over all pairs that its grid plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import polars as pl

from analysis.measures.pairs import POINT, Pair, pairs
from analysis.read.grids import Grid, Records
from analysis.stats import Arms, ModeratedGain, effect, holm, moderated_gains

Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class Verdict:
    """Of one pair (and setting) of a grid, by top-1 on the test split at the last epoch."""

    effect: str
    """'gain' or 'negative transfer' where p_holm is below 0.05, else 'unclear'."""
    p: float | None
    """Of the moderated t; None where no spread shows."""
    p_holm: float | None
    tests: int
    """The pairs that the grid plans: what p_holm is corrected for."""
    judged: int
    """Those of them that have a p so far."""


@dataclass(frozen=True)
class Design:
    """Of a grid whose students are all distilled in as many ways, with as many seeds."""

    students: int
    trainings: int
    """Ways in which each is distilled: teachers x settings."""
    seeds: int


def key(pair: Pair) -> Key:
    return tuple(pair.planned.values())


def by_key(found: Sequence[Pair]) -> dict[Key, ModeratedGain]:
    """The moderated gain of each pair that has one, by `key`. Each grid's students are judged among themselves."""
    students: dict[str, dict[str, list[Pair]]] = {}
    for one in found:
        students.setdefault(one.planned["grid"], {}).setdefault(one.planned["student"], []).append(one)
    gains: dict[Key, ModeratedGain] = {}
    for of_grid in students.values():
        members = [*of_grid.values()]
        judged = moderated_gains([Arms(of[0].baseline, [pair.distilled for pair in of]) for of in members])
        for of, results in zip(members, judged, strict=True):
            gains |= {key(pair): gain for pair, gain in zip(of, results, strict=True) if gain is not None}
    return gains


def verdicts(records: Records) -> dict[Key, Verdict]:
    """The verdict on each planned pair, by `key`. The family is what each grid plans: what is done of it, which part
    --where leaves and which other grids stand in the same table change no pair's verdict. A pair without a p counts in
    its family: it may still get one."""
    planned = pairs(records.whole or records, point=POINT)
    gains = by_key(planned)
    families: dict[str, list[Pair]] = {}
    for one in planned:
        families.setdefault(one.planned["grid"], []).append(one)
    found: dict[Key, Verdict] = {}
    for family in families.values():
        judged = [gains.get(key(one)) for one in family]
        p_values = [None if gain is None else gain.p for gain in judged]
        known = sum(p is not None for p in p_values)
        for one, gain, p, p_holm in zip(family, judged, p_values, holm(p_values, tests=len(family)), strict=True):
            said = effect(None if gain is None else gain.mean, p_holm)
            found[key(one)] = Verdict(said, p, p_holm, len(family), known)
    return found


def planned_design(grid: Grid) -> Design | None:
    """Of the whole grid, whatever is done of it or shown; None where it is uneven."""
    whole = grid.whole or grid
    seeds = whole.cells.filter(pl.col("mode") == "distilled").group_by("student").agg(pl.col("seed").n_unique())["seed"]
    return _design(pairs(whole), set(seeds))


def shown_design(grid: Grid) -> Design | None:
    """Of what is shown, and done, of a grid; None where that is uneven."""
    found = pairs(grid)
    return _design(found, {len(pair.gains) for pair in found})


def _design(found: Sequence[Pair], seeds: set[int]) -> Design | None:
    trainings = Counter(pair.planned["student"] for pair in found)
    ways = set(trainings.values())
    return Design(len(trainings), ways.pop(), seeds.pop()) if len(ways) == len(seeds) == 1 else None
