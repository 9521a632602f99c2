"""Lanes of a launch, each a thread in which a group of workers does what is dealt out to it, beside the pool."""

from __future__ import annotations

import logging
import threading

from grid.cluster.ledger import Ledger
from grid.cluster.nodes.capacity import Capacity
from grid.cluster.teachers.groups import run_in_turn
from grid.errors import one_line
from grid.plan import Stage
from grid.plan.schedule import Schedule
from grid.store.store import Store
from grid.work.execute import Runtime

log = logging.getLogger("kd_grid")


class Lanes:
    """Threads that end by themselves; `deal` starts more of them whenever there is something to do."""

    def __init__(
        self, schedule: Schedule, store: Store, capacity: Capacity, *, scratch: str, runtime: Runtime, ledger: Ledger
    ) -> None:
        self.schedule, self.store, self.capacity = schedule, store, capacity
        self.scratch, self.runtime, self.ledger = scratch, runtime, ledger
        self.most = capacity.lanes(sum(stage.place == "group" for stage in schedule.pending()))
        self.threads: list[threading.Thread] = []
        self.busy = 0
        self._lock = threading.Lock()

    def deal(self) -> None:
        """Start lanes for what groups of workers may do by now, unless there are as many as have room."""
        with self._lock:
            for stages in self.schedule.deal(self.most - self.busy):
                name = f"teachers-{len(self.threads)}"
                thread = threading.Thread(target=self._run, args=(stages,), name=name, daemon=True)
                self.threads.append(thread)
                self.busy += 1
                thread.start()

    def join(self) -> None:
        """Wait for all there are, those included that the end of another lets start."""
        for thread in self.threads:  # it grows
            thread.join()

    @property
    def are_alive(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def _run(self, stages: list[Stage]) -> None:
        group = None
        try:
            group = run_in_turn(
                stages, self.store, self.capacity, scratch=self.scratch, runtime=self.runtime, ledger=self.ledger
            )
        except Exception as problem:
            log.exception("a lane of teachers ended early")
            for stage in stages:
                if self.schedule.state(stage) in ("waiting", "running"):
                    self.ledger.finish(stage, one_line(problem))
        finally:
            with self._lock:
                self.busy -= 1
            self.deal()
        if group is not None:
            group.join()
