"""What a stage's worker holds while it runs: a share that is given, or of cells as small a part of a GPU as their
student's memory lets."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray

from grid.cluster.nodes.capacity import Capacity, Share
from grid.contract.units import sized
from grid.errors import one_line
from grid.plan import CellStage, Plan, Stage, stage_to_json
from grid.plan.schedule import Schedule
from grid.store.store import Store

if TYPE_CHECKING:
    from grid.work.memory.gpu import Footprint

log = logging.getLogger("kd_grid")

MOST_ON_A_GPU = 16
# What a GPU's allocators need besides, and what cells of one student differ by.
USABLE = 0.92


class Packing:
    """Shares of stages. With `gpus_per_cell: auto` each student's memory is measured first, by a task that has a GPU
    for itself; a stage that ran out of memory beside others gets twice its part, up to a GPU of its own."""

    def __init__(self, plan: Plan, store: Store, schedule: Schedule, capacity: Callable[[], Capacity]) -> None:
        self.plan, self.store, self.schedule, self.capacity = plan, store, schedule, capacity
        self.is_auto = plan.spec.resources.gpus_per_cell == "auto"
        self._footprints: dict[str, Footprint | None] = {}
        self._measuring: dict[str, Any] = {}
        self._least: dict[str, float] = {}
        self._least_cpus: dict[str, int] = {}
        self._host: dict[str, int] = {}
        self._keys: dict[str, str] = {}

    def measure(self) -> None:
        """Have the memory measured of students of which it is not known. Returns at once."""
        from grid.work.memory.gpu import kept_footprint

        if not self.is_auto or not self.capacity().gpus:
            return
        pending = {stage.id for stage in self.schedule.pending()}
        task = ray.remote(num_cpus=1, num_gpus=1, max_retries=1)(_measure)
        for cell in self.plan.cells:
            key = self._key(cell)
            if cell.id in pending and key not in self._footprints and key not in self._measuring:
                kept = kept_footprint(cell, self.store)
                if kept is not None:
                    self._footprints[key] = kept
                else:
                    self._measuring[key] = task.remote(stage_to_json(cell), self.store.url)

    def share_of(self, stage: Stage) -> Share | None:
        """None while a cell's student is being measured."""
        usual = self.capacity().share(stage.worker)
        key = self._key(stage)
        cpus = max(usual.cpus, self._least_cpus.get(key, 0))
        if not usual.gpus:
            return Share(cpus, 0.0, self._memory_of(stage))
        if key in self._measuring:
            done, _ = ray.wait([self._measuring[key]], timeout=0)
            if not done:
                return None
            self._footprints[key] = self._answer(stage, self._measuring.pop(key))
        gpus = usual.gpus
        if key in self._footprints:
            footprint = self._footprints[key]
            gpus = 1.0
            if footprint is not None:
                pending = {one.id for one in self.schedule.pending()}
                left = sum(self._key(one) == key for one in self.plan.cells if one.id in pending)
                gpus = part_of_a_gpu(footprint.taken / footprint.total, cells=left, gpus=self.capacity().gpus)
        return Share(cpus, max(gpus, self._least.get(key, 0.0)), self._memory_of(stage))

    def out_of_memory(self, stage: Stage, share: Share) -> Share:
        """What stages like this one get from now on, after it ran out of memory with this share."""
        key = self._key(stage)
        self._least[key] = max(self._least.get(key, 0.0), min(1.0, 2 * share.gpus))
        return replace(share, gpus=self._least[key])

    def out_of_host_memory(self, stage: Stage, share: Share) -> Share | None:
        """What stages like this one get from now on, after a node had no memory for it with this share: the place of
        twice as many CPUs, so that fewer run beside it. None where it had a node for itself."""
        largest = int(max(cpus for cpus, _ in self.capacity().nodes))
        if share.cpus >= largest:
            return None
        key = self._key(stage)
        self._least_cpus[key] = max(self._least_cpus.get(key, 0), min(largest, 2 * share.cpus))
        return replace(share, cpus=self._least_cpus[key])

    def took(self, stage: Stage, taken: int) -> None:
        """A stage was seen to take so many bytes of its node's memory: counted for those that come, and kept for other
        launches where so many matter."""
        from grid.work.memory.host import keep_bytes

        if taken <= self._taken(stage):
            return
        self._host[self._key(stage)] = taken
        if self.capacity().may_crowd(taken):
            try:
                keep_bytes(stage, self.store, taken)
            except OSError as error:  # the next launch sees for itself
                log.warning("stage %s: the memory that it took was not kept: %s", stage.id, one_line(error))

    def _memory_of(self, stage: Stage) -> int:
        taken = self._taken(stage)
        return self.capacity().may_crowd(taken) if taken else 0

    def _taken(self, stage: Stage) -> int:
        from grid.work.memory.host import kept_bytes

        key = self._key(stage)
        if key not in self._host:
            self._host[key] = kept_bytes(stage, self.store)
        return self._host[key]

    def _key(self, stage: Stage) -> str:
        from grid.work.memory.gpu import memory_key

        if stage.id not in self._keys:
            self._keys[stage.id] = memory_key(stage)
        return self._keys[stage.id]

    def _answer(self, stage: Stage, task: Any) -> Footprint | None:
        try:
            found: Footprint = ray.get(task)
        except Exception as error:  # the stage itself will say what is wrong with it
            log.warning("stage %s: its memory could not be measured, so it gets a GPU: %s", stage.id, one_line(error))
            return None
        taken, total = sized(found.taken), sized(found.total)
        log.info("stage %s takes %s of the %s of %s", stage.id, taken, total, found.gpu)
        return found


def part_of_a_gpu(taken: float, *, cells: int, gpus: float) -> float:
    """The share of one cell of `cells`, whose process takes this part of a GPU's memory: 1 / k for the most cells k
    that fit, but no more of them than leave every one of `gpus` something to do."""
    fitting = max(1, min(int(USABLE / max(taken, 1e-9)), MOST_ON_A_GPU))
    spread = max(1, math.ceil(cells / max(gpus, 1.0)))
    # Ray counts in ten-thousandths, and k parts must not be more than one.
    return math.floor(10_000 / min(fitting, spread)) / 10_000


def _measure(stage_json: str, storage: str) -> Footprint:
    from grid.work.memory.gpu import measure_footprint

    return measure_footprint(CellStage.model_validate_json(stage_json), Store(storage))
