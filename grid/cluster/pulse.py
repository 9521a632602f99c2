"""Whether the Ray that a launch works on is still there. Ray's own library would say nothing of it: it waits for a
minute and ends the process."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import ray

from grid.cluster.ray_internals.core import raylet_socket
from grid.contract.processes import born

LOOK_SECONDS = 1.0
CONNECT_SECONDS = 5.0
# A head may be started again, and is waited for; Ray's library gives up after a minute.
PATIENCE_SECONDS = 45.0


class Pulse:
    """Of the Ray that this process has joined. patience: seconds that its head may be silent."""

    def __init__(self, *, patience: float = PATIENCE_SECONDS) -> None:
        self.patience = patience
        self._head: str = ray.get_runtime_context().gcs_address
        self._raylet = _process_at(raylet_socket())
        self._born = born(self._raylet) if self._raylet is not None else ""
        self._heard, self._lock = time.monotonic(), threading.Lock()

    def loss(self) -> str | None:
        """What is lost for good; None while Ray is there, or is waited for."""
        with self._lock:
            if self._raylet is not None and born(self._raylet) != self._born:
                return f"the Ray of this machine has ended (process {self._raylet})"
            host, _, port = self._head.rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
            except OSError:
                silence = time.monotonic() - self._heard
                return f"Ray's head at {self._head} does not answer" if silence >= self.patience else None
            self._heard = time.monotonic()
            return None


@contextlib.contextmanager
def watched(pulse: Pulse, on_loss: Callable[[str], None]) -> Iterator[None]:
    """While this context lasts, on_loss is told of a Ray that is lost, in another thread. It should end the process:
    calls into Ray may not come back."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            reason = pulse.loss()
            if reason is not None and not over.is_set():
                on_loss(reason)

    threading.Thread(target=watch, name="pulse", daemon=True).start()
    try:
        yield
    except Exception:  # may come of the loss, before the thread has looked
        reason = pulse.loss()
        if reason is not None:
            on_loss(reason)
        raise
    finally:
        over.set()


def _process_at(path: str) -> int | None:
    """The process that listens at a Unix socket; None where the system does not say."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(path)
        facts = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", facts)[0])
