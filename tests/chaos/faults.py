"""What a launch is made to bear. Each fault says whether it happened: there may be nobody at work to be killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from grid.cluster.retries import is_given_up
from grid.private import machine_folder
from tests.at_work import CONTROLLER_TITLE, Ledger, Worker, title, workers
from tests.chaos.balloon import squeeze
from tests.chaos.damage import damage
from tests.launching import Launch
from tests.ray_cluster import Node, RayCluster

STOP_SECONDS = 300.0
NOTICE_SECONDS = (5.0, 20.0)
STALL_MINUTES = 0.75  # after which a stage that hangs fails
HANG_SECONDS = 60 * STALL_MINUTES + 30
FROZEN_SECONDS = 240.0
WORKERS_END_SECONDS = 60.0
LOOK_SECONDS = 0.1


class Deck:
    """The kinds of faults in the order in which they come: each once, and then by their weights."""

    def __init__(self, kinds: list[str], chance: random.Random) -> None:
        self.kinds, self.chance = kinds, chance
        self.waiting = chance.sample(kinds, len(kinds))

    def draw(self, is_possible: Callable[[str], bool]) -> str | None:
        """The next that is possible at all at the moment."""
        for kind in self.waiting:
            if is_possible(kind):
                self.waiting.remove(kind)
                return kind
        kinds = [kind for kind in self.kinds if is_possible(kind)]
        if self.waiting or not kinds:
            return None
        (kind,) = self.chance.choices(kinds, [FAULTS[kind][0] for kind in kinds])
        return kind

    def put_back(self, kind: str) -> None:
        self.waiting.insert(0, kind)


class Faults:
    """Faults for one launch. No stage loses its worker more often than a launch retries it. again: launches the grid
    over the same storage, on a Ray of its own; others: launches that such a fault has left at work."""

    def __init__(
        self,
        launch: Launch,
        ledger: Ledger,
        *,
        teachers: int,
        cluster: RayCluster,
        chance: random.Random,
        again: Callable[[], Launch],
        memory: float | None,
    ) -> None:
        self.launch, self.ledger, self.teachers, self.cluster, self.chance = launch, ledger, teachers, cluster, chance
        self.storage, self.again, self.memory = ledger.storage, again, memory
        self.deaths: Counter[str] = Counter()
        self.others: list[Launch] = []
        self.hung = False
        self.problems: list[str] = []

    def do(self, kind: str) -> str:
        """What happened; empty where it is not possible at the moment."""
        return FAULTS[kind][1](self)

    def is_possible(self, kind: str) -> bool:
        """Whether there is something left of what that kind of fault is for, and already."""
        teachers_left = len(list(self.storage.glob("teachers/*/record.json"))) < self.teachers
        return {TEACHER: teachers_left, CONTROLLER: teachers_left, MEMORY: not self.others}.get(kind, True)

    def kill_cell(self) -> str:
        return self._kill(self._at_work("cells", "logits"))

    def kill_teacher(self) -> str:
        return self._kill(self._at_work("teachers"))

    def kill_controller(self) -> str:
        """What leads a group of teachers' workers, which end with it."""
        stages = [worker.stage for worker in self._at_work("teachers")]
        controllers = self._controllers()
        if not stages or not controllers or any(is_given_up(self.deaths[stage] + 1) for stage in stages):
            return ""
        controller = self.chance.choice(controllers)
        os.kill(controller, signal.SIGKILL)
        self.deaths.update(stages)  # of several groups, any may be the one
        return f"controller {controller} killed with -9 in the middle of {', '.join(stages)}"

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

    def kill_driver_and_damage(self) -> str:
        """What the launch left is damaged before the next one begins."""
        if self.launch.process.poll() is not None or self.others or not self.ledger.seen:
            return ""
        self.launch.kill()
        until = time.monotonic() + WORKERS_END_SECONDS
        while workers(self.storage, *KINDS) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        self.ledger.look()
        harmed = damage(self.storage, self.chance, files=3)
        for _, folder in harmed:
            self.ledger.forget(folder)
        return f"launch.py killed with -9, and damaged: {', '.join(what for what, _ in harmed)}"

    def freeze_worker(self) -> str:
        """A worker stands still until another launch has taken its stage over and finished it; then it goes on."""
        candidates = [] if self.others else self._at_work("cells")
        if not candidates:
            return ""
        worker = self.chance.choice(candidates)
        if not worker.stop():
            return ""
        began = time.monotonic()
        other = self.again()
        self.others.append(other)
        record = worker.folder / "record.json"
        while not record.exists() and other.process.poll() is None and time.monotonic() - began < FROZEN_SECONDS:
            self.ledger.look()
            time.sleep(LOOK_SECONDS)
        seconds = time.monotonic() - began
        if not record.exists():
            self.problems.append(f"{worker.stage}: frozen for {seconds:.0f} s, and finished by no other launch")
        self.ledger.look()
        with contextlib.suppress(psutil.NoSuchProcess):  # Ray may have ended it for its node's memory
            psutil.Process(worker.pid).resume()
        return f"worker {worker.pid} frozen for {seconds:.0f} s in the middle of {worker.stage}; another launch did it"

    def fill_memory(self) -> str:
        """The machine's memory is taken until Ray's monitor ends workers."""
        at_work = self._at_work(*KINDS)
        if self.memory is None or not at_work or any(is_given_up(self.deaths[w.stage] + 1) for w in at_work):
            return ""
        what = {worker.pid: f"the worker of {worker.stage}" for worker in at_work}
        what |= {controller: f"controller {controller}" for controller in self._controllers()}
        self.deaths.update(worker.stage for worker in at_work)
        if not squeeze(self.memory, lambda: not all(map(_lives, what))):
            return ""
        return f"memory taken until Ray ended {', '.join(name for pid, name in what.items() if not _lives(pid))}"

    def hang(self) -> str:
        """The locks of the prepared images are held, as on a file system that does not answer, until a stage that wants
        to open them has failed."""
        if self.others or not self._at_work("cells"):
            return ""
        before, until = set(self._failures()), time.monotonic() + HANG_SECONDS
        with _locked(machine_folder() / "prepared"):
            while time.monotonic() < until and self.launch.process.poll() is None:
                self.ledger.look()
                failed = set(self._failures()) - before
                if failed:
                    self.hung = True
                    stages = ", ".join(f"{path.parent.parent.name}/{path.parent.name}" for path in sorted(failed))
                    return f"{stages} hung, and failed for it"
                time.sleep(LOOK_SECONDS)
        return ""

    def _failures(self) -> Iterator[Path]:
        return self.storage.glob("*/*/failure.json")

    def _at_work(self, *kinds: str) -> list[Worker]:
        found = workers(self.storage, *kinds)
        return [worker for worker in found if self.cluster.node_of(worker.pid) is not None]

    def _controllers(self) -> list[int]:
        there = [process.pid for process in psutil.process_iter() if title(process).startswith(CONTROLLER_TITLE)]
        return sorted(pid for pid in there if self.cluster.node_of(pid) is not None)

    def _busy_node(self) -> tuple[Node | None, list[str]]:
        """A node that is at work, and its stages; none where it would be one loss too many for one of them."""
        at_work = [(w, self.cluster.node_of(w.pid)) for w in self._at_work(*KINDS)]
        nodes = {node.number: node for _, node in at_work if node is not None}
        spared = {node.number for node in nodes.values() if self._would_die_for_good(node)}
        if not nodes.keys() - spared:
            return None, []
        node = nodes[self.chance.choice(sorted(nodes.keys() - spared))]
        return node, [worker.stage for worker, on in at_work if on == node]

    def _kill(self, candidates: list[Worker]) -> str:
        candidates = [worker for worker in candidates if not is_given_up(self.deaths[worker.stage] + 1)]
        if not candidates:
            return ""
        worker = self.chance.choice(candidates)
        if not worker.kill():
            return ""
        self.deaths[worker.stage] += 1
        return f"worker {worker.pid} killed with -9 in the middle of {worker.stage}"

    def _would_die_for_good(self, node: Node) -> bool:
        return any(
            is_given_up(self.deaths[worker.stage] + 1)
            for worker in self._at_work(*KINDS)
            if self.cluster.node_of(worker.pid) == node
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        for path in folder.glob("*.lock"):
            lock = held.enter_context(open(path, "rb"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


KINDS = ("teachers", "logits", "cells")
TEACHER, CONTROLLER, MEMORY = "teacher's worker killed", "their controller killed", "out of memory"

# With weights: a launch that starts again takes a quarter of a minute, in which nobody is at work.
FAULTS: dict[str, tuple[float, Callable[[Faults], str]]] = {
    "cell's worker killed": (6, Faults.kill_cell),
    TEACHER: (6, Faults.kill_teacher),
    CONTROLLER: (2, Faults.kill_controller),
    "node lost": (4, Faults.lose_node),
    "node taken away": (4, Faults.drain_node),
    "launch killed": (2, Faults.kill_driver),
    "launch killed, damaged": (2, Faults.kill_driver_and_damage),
    "launch asked to stop": (1, Faults.stop_driver),
    MEMORY: (2, Faults.fill_memory),
    "frozen past its lease": (1, Faults.freeze_worker),
    "stage that hangs": (1, Faults.hang),
}
