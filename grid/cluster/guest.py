"""Leave Ray in a process that goes on after its launch, such as a notebook's."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from grid.errors import UserError

# Stages that were told to stop save a checkpoint within seconds; what waits for a Ray that is lost may wait for ever.
LEAVE_SECONDS = 30.0


def check_free() -> None:
    """Raises UserError where this process has joined a Ray already, of which there can be one."""
    import ray

    if ray.is_initialized():
        raise UserError(
            "this process has joined a Ray already: call ray.shutdown() first, or restart the process (a notebook's "
            "kernel) where a launch has left it behind"
        )


def leave_ray(lanes: Sequence[threading.Thread] = ()) -> None:
    """Once the teachers' threads are out of Ray: a thread that is inside a Ray that is shut down has the process ended
    by it. A Ray that they do not leave in time stays joined, and `check_free` says so to the next launch."""
    import ray

    until = time.monotonic() + LEAVE_SECONDS
    for lane in lanes:
        lane.join(max(0.0, until - time.monotonic()))
    if not any(lane.is_alive() for lane in lanes):
        ray.shutdown()
