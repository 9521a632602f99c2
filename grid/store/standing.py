"""How a plan's stages stand on a storage before they are run, and what is said of those that are computed again."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from grid.plan import Plan, Stage
from grid.plan.schedule import unneeded_stages
from grid.store.lease import Leases
from grid.store.store import UNREAD, Inputs, Standing, Store

log = logging.getLogger("kd_grid")

SHOWN = 5  # damaged stages that are named one by one
READS_AT_A_TIME = 16  # a storage by URL answers many as fast as one


@dataclass(frozen=True)
class Stands:
    done: frozenset[str]
    """Ids of the stages whose outputs are complete, and of the inputs that there are."""
    waits: frozenset[str]
    """Of those that are complete, but whose data set or teacher is made again: whether it is the same shows then."""
    lines: tuple[str, ...]
    """On what is computed again though it was done once, and why."""


def look(plan: Plan, store: Store) -> Stands:
    """How each stage stands. Raises IdentityMismatchError."""
    standings = _read(plan, store)
    done: set[str] = set()
    waits: set[str] = set()
    for stage in plan.stages:
        standing = standings[stage.id]
        if standing.is_done and {of.id for of in stage.computed_from} <= done:
            done.add(stage.id)
        elif standing.is_done or standing.waits:
            waits.add(stage.id)
    lines = [_damaged(standing.damage) for standing in standings.values() if standing.damage is not None]
    if len(lines) > SHOWN + 1:
        more = f"{len(lines) - SHOWN} more stages are damaged, or files of theirs are missing; they are computed again"
        lines = [*lines[:SHOWN], more]
    others = [(stage, standings[stage.id]) for stage in plan.stages]
    return Stands(frozenset(done), frozenset(waits), (*lines, *of_other_inputs(others, plan, store)))


def _read(plan: Plan, store: Store) -> Mapping[str, Standing]:
    inputs, there = Inputs(store), set[str]()
    for folder in {stage.folder.rpartition("/")[0] for stage in plan.stages}:
        with contextlib.suppress(NotADirectoryError):
            there.update(f"{folder}/{name}" for name in store.names(folder))

    def standing(stage: Stage) -> Standing:
        return store.standing(stage, inputs) if stage.folder in there else Standing()

    if store.is_local:
        return {stage.id: standing(stage) for stage in plan.stages}
    with ThreadPoolExecutor(READS_AT_A_TIME) as pool:
        return dict(zip([stage.id for stage in plan.stages], pool.map(standing, plan.stages), strict=True))


def _damaged(damage: str) -> str:
    kept = f", and what lies there is kept as {UNREAD}" if "newer than this program" in damage else ""
    return f"{damage}; it is computed again{kept}"


def of_other_inputs(standings: Iterable[tuple[Stage, Standing]], plan: Plan, store: Store) -> list[str]:
    """A line for each teacher and data set that is another one now than those that stages were computed from."""
    counts: Counter[str] = Counter()
    inputs: dict[str, Stage] = {}
    for stage, standing in standings:
        for of in stage.computed_from:
            if of.id == standing.other:
                inputs[of.id] = of
                counts[of.id] += 1
    titles, lines = plan.titles(), []
    for of_id, count in counts.items():
        made = inputs[of_id]
        stages, are = ("1 stage", "it is") if count == 1 else (f"{count} stages", "they are")
        lines.append(
            f"{store.location(made.folder)}: {stages} learned from {made.another} of {titles[of_id]} than lies there "
            f"now; {are} computed again"
        )
    return lines


def without_damaged_teachers(plan: Plan, store: Store, stands: Stands) -> Stands:
    """The same, with those teachers trained again whose weights are not those of their record, where any stage is about
    to load them. One that another launch holds is left to it."""
    done = stands.done | unneeded_stages(plan, stands.done)
    open_stages = [stage for stage in plan.stages if stage.id not in done]
    loaded = {of.id for stage in open_stages for of in stage.needs} & {of.id for s in open_stages for of in s.sources}
    condemned = False
    for teacher in plan.stages:
        if teacher.id not in loaded & stands.done:
            continue
        damage = store.weights_damage(teacher)
        lease = Leases(store, "looks at the weights").take(teacher.folder) if damage is not None else None
        if lease is not None and damage is not None:
            with lease:
                store.condemn(teacher, damage)
            condemned = True
    return look(plan, store) if condemned else stands
