"""What Ray offers, and how a grid divides it: lanes for teachers beside slots for cells. Imports no Ray."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from grid.errors import UserError
from grid.spec.resources import Resources

# Of a GPU, for a cell that says nothing.
CELL_GPUS = 0.25


@dataclass(frozen=True)
class Share:
    """What one worker holds."""

    cpus: int
    gpus: float
    memory: int = 0
    """Bytes of its node, 0 where that need not be counted."""

    def as_dict(self) -> dict[str, float]:
        more = {"GPU": self.gpus, "memory": self.memory}
        return {"CPU": self.cpus, **{kind: value for kind, value in more.items() if value}}

    @property
    def is_part_of_a_gpu(self) -> bool:
        return 0 < self.gpus < 1


@dataclass
class _Free:
    """What is left of a node while shares are placed on it."""

    cpus: float
    gpus: list[float]
    """Of each one; a part of a GPU is of a single one, and more than one are whole."""
    memory: float

    def slots(self, share: Share) -> int:
        """How many such workers fit, memory aside."""
        by_cpu = int(self.cpus // share.cpus)
        if not share.gpus:
            return by_cpu
        of_gpus = len(self.gpus) * int(1 / share.gpus) if share.is_part_of_a_gpu else int(len(self.gpus) // share.gpus)
        return min(by_cpu, of_gpus)

    def take(self, share: Share) -> bool:
        """False, and nothing taken, where it does not fit."""
        each = share.gpus if share.is_part_of_a_gpu else 1.0
        # Ray counts in ten-thousandths, and parts add up to one but for rounding. The fullest first, as Ray does.
        fitting = sorted((i for i, left in enumerate(self.gpus) if left >= each - 1e-6), key=lambda i: self.gpus[i])
        count = math.ceil(share.gpus)
        if share.cpus > self.cpus or share.memory > self.memory or count > len(fitting):
            return False
        self.cpus -= share.cpus
        self.memory -= share.memory
        for i in fitting[:count]:
            self.gpus[i] -= each
        return True


@dataclass(frozen=True)
class Capacity:
    """The nodes, and what is asked of them."""

    nodes: tuple[tuple[float, float], ...]
    """CPUs and GPUs of each node; a worker must fit on one."""
    teacher_worker: Share
    fewest: int
    """Data-parallel workers of a teacher, at least."""
    most: int
    """At most."""
    cell: Share
    """The share of a cell that has no other."""
    concurrency: int | None
    memory: tuple[float, ...] = ()
    """Bytes of each node, as Ray counts them."""

    def on(self, nodes: Sequence[Mapping[str, float]]) -> Capacity:
        """The same wishes on other nodes: resources of each, as Ray names them."""
        return replace(
            self,
            nodes=tuple((node.get("CPU", 0), node.get("GPU", 0)) for node in nodes),
            memory=tuple(node.get("memory", math.inf) for node in nodes),
        )

    @classmethod
    def of(cls, nodes: Sequence[Mapping[str, float]], wanted: Resources) -> Capacity:
        """nodes: resources of each, as Ray names them. Raises UserError where a teacher or a cell could never be
        scheduled, which Ray would wait for in silence."""
        gpus = any(node.get("GPU", 0) for node in nodes)
        teacher_gpus, cell_gpus = wanted.gpus_per_teacher_worker, wanted.gpus_per_cell
        if cell_gpus is None or cell_gpus == "auto":
            cell_gpus = CELL_GPUS if gpus else 0.0
        fewest, most = wanted.workers
        capacity = cls(
            nodes=(),
            teacher_worker=Share(
                wanted.cpus_per_teacher_worker, (1.0 if gpus else 0.0) if teacher_gpus is None else teacher_gpus
            ),
            fewest=fewest,
            most=most,
            cell=Share(wanted.cpus_per_cell, cell_gpus),
            concurrency=wanted.concurrency,
        ).on(nodes)
        for what, share, count in (
            ("a teacher", capacity.teacher_worker, fewest),
            ("a cell", capacity.cell, 1),
        ):
            if not capacity._place(capacity._free(), share, count):
                offered = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in capacity.nodes)
                raise UserError(
                    f"{what} asks for {count} x ({share.cpus} CPUs and {share.gpus:g} GPUs), Ray's nodes offer "
                    f"{offered}: lower the grid's resources (--set resources....=) or use larger nodes"
                )
        return capacity

    def share(self, worker: Literal["teacher", "cell"]) -> Share:
        """What such a worker usually holds."""
        return self.teacher_worker if worker == "teacher" else self.cell

    def room_for(self, share: Share) -> int:
        """How many such workers fit where nothing else runs."""
        return sum(node.slots(share) for node in self._free())

    @property
    def gpus(self) -> float:
        return sum(gpus for _, gpus in self.nodes)

    def lanes(self, jobs: int) -> int:
        """Teachers trained at a time: as many as fit into half of what there is, at least one."""
        free = self._free()
        fitting = 0
        while self._place(free, self.teacher_worker, self.most):
            fitting += 1
        return max(1, min(jobs, fitting // 2))

    def slots(self, busy_lanes: int) -> int:
        """Cells of the usual share that fit beside so many busy lanes."""
        free, slots = self._free(), 0
        self._place(free, self.teacher_worker, self.most * busy_lanes)
        while slots != self.concurrency and self._place(free, self.cell, 1):
            slots += 1
        return slots

    def has_room(self, share: Share, *, running: Iterable[Share], busy_lanes: int) -> bool:
        """Whether one more worker of the pool fits beside the running ones and so many busy lanes."""
        running = sorted(running, key=lambda one: (one.gpus, one.cpus), reverse=True)
        if self.concurrency is not None and len(running) >= self.concurrency:
            return False
        free = self._free()
        self._place(free, self.teacher_worker, self.most * busy_lanes)
        # Where a node is lost, what ran there waits for room: it comes first.
        return all(self._place(free, one, 1) for one in running) and self._place(free, share, 1)

    def _free(self) -> list[_Free]:
        memory = self.memory or (math.inf,) * len(self.nodes)
        return [_Free(cpus, [1.0] * int(gpus), free) for (cpus, gpus), free in zip(self.nodes, memory, strict=True)]

    def may_crowd(self, taken: int) -> int:
        """Bytes that a cell which takes so many is to hold: 0 where every node has memory for as many of them as it has
        room for, and no more than a node has."""
        crowded = False
        for free in self._free():
            slots = free.slots(self.cell)
            crowded = crowded or taken * min(slots, self.concurrency or slots) > free.memory
        return int(min(taken, max(self.memory, default=math.inf))) if crowded else 0

    @staticmethod
    def _place(free: list[_Free], share: Share, count: int) -> bool:
        """Put `count` shares on the nodes with most CPUs left; False where one does not fit any more."""
        for _ in range(count):
            if not any(node.take(share) for node in sorted(free, key=lambda node: node.cpus, reverse=True)):
                return False
        return True
