"""The data set, made by the launching process itself while Ray starts."""

from __future__ import annotations

import contextlib
import threading
import time

from grid.launch.books import Books
from grid.launch.launch import Launch
from grid.store.lease import LOOK_SECONDS, Leases
from grid.work.execute import execute
from grid.work.run_stage import run_stage
from kd.machine.alive import tell_alive
from kd.training.errors import StoppedError


class Preparation:
    """A thread that makes the data set, and imports what takes seconds. Whatever becomes of it, `wait` ends."""

    def __init__(self, launch: Launch, books: Books, leases: Leases) -> None:
        self.launch, self.books, self.leases = launch, books, leases
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prepare", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        self._over.wait()

    def _run(self) -> None:
        try:
            self._make_data()
            import grid.cluster.pool.search
            import grid.cluster.teachers.lanes  # noqa: F401 (what takes seconds)
        finally:
            self._over.set()

    def _make_data(self) -> None:
        data, store = self.launch.plan.data, self.launch.store
        if self.books.schedule.state(data) == "reused":
            return
        self.books.start(data)

        def work() -> None:
            # Another launch may be at it, or just have done it.
            while not store.is_done(data):
                lease = self.leases.take(data.folder)
                if lease is None:
                    time.sleep(LOOK_SECONDS * store.slowness)
                    tell_alive()
                    continue
                with lease, contextlib.suppress(StoppedError):  # by another launch that has taken it over
                    run_stage(data, store, self.launch.runtime, leave=lease.leave, holds=lease.holds)

        def give_up(error: str) -> None:
            self.books.finish(data, error)
            self._over.set()  # this thread hangs, and nothing ends a thread

        error = execute(data, store, self.launch.runtime, work, on_stall=give_up)
        if not self._over.is_set():  # else it went on after it had been given up
            self.books.finish(data, error)
