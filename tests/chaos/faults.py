"""What a launch is made to bear. Each fault says whether it happened: there may be nobody at work to be killed."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from grid.cluster.capacity import MAX_WORKER_DEATHS
from tests.at_work import Worker, workers
from tests.launching import Launch
from tests.ray_cluster import Node, RayCluster

STOP_SECONDS = 300.0
NOTICE_SECONDS = (5.0, 20.0)


class Faults:
    """Faults for one launch. No stage loses its worker more often than a launch retries it."""

    def __init__(
        self, launch: Launch, storage: Path, *, teachers: int, cluster: RayCluster, chance: random.Random
    ) -> None:
        self.launch, self.storage, self.teachers, self.cluster, self.chance = launch, storage, teachers, cluster, chance
        self.deaths: Counter[str] = Counter()

    def draw(self) -> str:
        """The kind of the next fault."""
        (kind,) = self.chance.choices([*FAULTS], [weight for weight, _ in FAULTS.values()])
        return kind

    def do(self, kind: str) -> str:
        """What happened; empty where it is not possible at the moment."""
        return FAULTS[kind][1](self)

    def is_past(self, kind: str) -> bool:
        """Whether there is nothing left of what that kind of fault is for."""
        return kind == TEACHER and len(list(self.storage.glob("logits/*/record.json"))) == self.teachers

    def kill_cell(self) -> str:
        return self._kill(self._at_work("cells"))

    def kill_teacher(self) -> str:
        return self._kill(self._at_work("teachers", "logits"))

    def lose_node(self) -> str:
        """A node that is at work is lost, at once or with workers that outlive it a little; another one comes."""
        node, stages = self._busy_node()
        if node is None:
            return ""
        at_once = self.chance.random() < 0.5
        self.cluster.remove_node(node, at_once=at_once)
        self.deaths.update(stages)
        new = self.cluster.add_node(cpus=node.cpus)
        how = "at once" if at_once else "its workers a little later"
        return f"node {node.number} lost ({how}) with {', '.join(stages)}; node {new.number} comes"

    def drain_node(self) -> str:
        """A node that is at work is to be taken away in some seconds, and is; another one comes."""
        node, stages = self._busy_node()
        if node is None:
            return ""
        seconds = self.chance.uniform(*NOTICE_SECONDS)
        self.cluster.drain_node(node, seconds=seconds)
        self.deaths.update(stages)  # a worker that leaves counts for Ray as one that is lost
        new = self.cluster.add_node(cpus=node.cpus)
        return f"node {node.number} taken away in {seconds:.0f} s with {', '.join(stages)}; node {new.number} comes"

    def kill_driver(self) -> str:
        if self.launch.process.poll() is not None:
            return ""
        self.launch.kill()
        return "launch.py killed with -9"

    def stop_driver(self) -> str:
        number = self.chance.choice([signal.SIGTERM, signal.SIGINT])
        if self.launch.process.poll() is not None:
            return ""
        self.launch.interrupt(number)
        status = self.launch.finish(STOP_SECONDS)
        return f"launch.py sent {number.name}, ended with {status}"

    def _at_work(self, *kinds: str) -> list[Worker]:
        found = workers(self.storage, *kinds)
        return [worker for worker in found if self.cluster.node_of(worker.pid) is not None]

    def _busy_node(self) -> tuple[Node | None, list[str]]:
        """A node that is at work, and its stages; none where it would be one loss too many for one of them."""
        at_work = [(w, self.cluster.node_of(w.pid)) for w in self._at_work("teachers", "logits", "cells")]
        nodes = {node.number: node for _, node in at_work if node is not None}
        spared = {node.number for node in nodes.values() if self._would_die_for_good(node)}
        if not nodes.keys() - spared:
            return None, []
        node = nodes[self.chance.choice(sorted(nodes.keys() - spared))]
        return node, [worker.stage for worker, on in at_work if on == node]

    def _kill(self, candidates: list[Worker]) -> str:
        candidates = [worker for worker in candidates if self.deaths[worker.stage] < MAX_WORKER_DEATHS]
        if not candidates:
            return ""
        worker = self.chance.choice(candidates)
        if not worker.kill():
            return ""
        self.deaths[worker.stage] += 1
        return f"worker {worker.pid} killed with -9 in the middle of {worker.stage}"

    def _would_die_for_good(self, node: Node) -> bool:
        return any(
            self.deaths[worker.stage] >= MAX_WORKER_DEATHS
            for worker in self._at_work("teachers", "logits", "cells")
            if self.cluster.node_of(worker.pid) == node
        )


TEACHER = "teacher's worker killed"

# With weights: a launch that starts again takes a quarter of a minute, in which nobody is at work.
FAULTS: dict[str, tuple[float, Callable[[Faults], str]]] = {
    "cell's worker killed": (6, Faults.kill_cell),
    TEACHER: (6, Faults.kill_teacher),
    "node lost": (4, Faults.lose_node),
    "node taken away": (4, Faults.drain_node),
    "launch killed": (2, Faults.kill_driver),
    "launch asked to stop": (1, Faults.stop_driver),
}
