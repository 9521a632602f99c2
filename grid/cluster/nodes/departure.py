"""Machines and workers that are about to be taken away: what runs there saves a checkpoint and leaves.

A node is drained before a spot instance is reclaimed or a pod deleted (`ray start --block` drains its node when it is
sent SIGTERM); a batch system may send SIGTERM to each process.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Collection
from typing import Any, NoReturn

from grid.cluster.ray_internals import core

log = logging.getLogger("kd_grid")

LOOK_SECONDS = 2.0

_asked = threading.Event()
_busy = threading.Event()


def leave_on_sigterm() -> None:
    """From now on SIGTERM lets the stage that runs in this process save a checkpoint; a process without one ends, as
    before. Must be called in the main thread."""
    before = signal.getsignal(signal.SIGTERM)

    def on_sigterm(signum: int, frame: Any) -> None:
        if _busy.is_set():
            _asked.set()
        elif callable(before):
            before(signum, frame)
        else:
            os._exit(128 + signum)

    signal.signal(signal.SIGTERM, on_sigterm)


class Departure:
    """Whether this process, or one of the nodes that a stage runs on, is about to go. Use as a context manager around
    the stage."""

    def __init__(self, nodes: Collection[str] = ()) -> None:
        """nodes: ids; this process's own if none are given."""
        import ray

        self._nodes = {*nodes} or {ray.get_runtime_context().get_node_id()}
        self._looked, self._draining = -LOOK_SECONDS, False

    def __enter__(self) -> Departure:
        _busy.set()
        return self

    def __exit__(self, *_: object) -> None:
        _busy.clear()

    def is_near(self) -> bool:
        if not self._draining and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            self._draining = bool(self._nodes & draining_nodes())
        return self._draining or _asked.is_set()


def end_process() -> NoReturn:
    """Ray starts another worker where there is room, and has it go on from the checkpoint."""
    log.warning("this worker is taken away: what ran in it goes on elsewhere")
    logging.shutdown()
    os._exit(1)


def draining_nodes() -> set[str]:
    """Ids of nodes that take nothing new and will soon be gone."""
    import ray

    try:
        return core.draining_nodes()
    except (
        ray.exceptions.RayError,
        RuntimeError,
        OSError,
    ) as error:  # Ray's own state may not be reached at the moment; the stage goes on
        log.debug("Ray did not say which nodes are drained: %s", error)
        return set()
