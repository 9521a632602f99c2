"""What all stages have in common where they are computed, in plain Python, free of Ray. `execute` is the edge at which
errors become records. Free of heavy imports: a launch knows how its stages run before torch is there."""

from __future__ import annotations

import logging
import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

from grid.contract.credentials import redacted
from grid.errors import one_line
from grid.plan import Stage
from grid.private import use_private_compiler_caches
from grid.store.failures import record_failure
from grid.store.lease import Holds, always
from grid.store.records import Value
from grid.store.store import Store
from grid.work.stall import watched
from kd.training.errors import StoppedError

log = logging.getLogger("kd_grid")

RECORD_SECONDS = 60.0


@dataclass(frozen=True)
class Runtime:
    """Where and how a stage runs: facts that go on its record and never into its id."""

    threads: int = 1
    device: str = "cpu"
    launch: str = ""
    code_version: str = "unknown"
    checkpoint_minutes: float = 10.0
    stall_minutes: float = 60.0
    deterministic: bool = False
    keep_predictions: bool = True
    stop: str = ""
    """The file on the storage that tells the launch's stages to save what they have and leave."""
    tries: int = 1
    """How often the launch has begun the stage."""

    def here(self, *, threads: int, device: str | None = None, tries: int = 1) -> Runtime:
        """On the given device, or the first GPU that this process may use, or the CPU with so many threads; sets torch
        up."""
        import torch

        from kd.machine.device import best_device

        device = device or best_device()
        runtime = replace(self, threads=threads, device=device, tries=tries)
        torch.set_num_threads(threads)
        use_private_compiler_caches()
        if runtime.deterministic and runtime.device != "cpu":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS wants it before its first call
        torch.use_deterministic_algorithms(runtime.deterministic and runtime.device != "cpu")
        return runtime

    def provenance(self) -> dict[str, Value]:
        return {"launch": self.launch, "code_version": self.code_version, "tries": self.tries}


def leave_process(error: str) -> None:
    """A worker that hangs ends: Ray gives its place to another, which finds the failure recorded."""
    os._exit(1)


def execute(
    stage: Stage,
    store: Store,
    runtime: Runtime,
    run: Callable[[], None],
    *,
    holds: Holds = always,
    on_stall: Callable[[str], None] = leave_process,
) -> str | None:
    """Run a stage's work; an error is logged, recorded as the stage's failure and returned as one line. Where it hangs
    that is recorded too, and on_stall is told, from another thread. holds: whether the stage is still this launch's;
    where it is not, an error is logged alone. Raises StoppedError then."""

    def stalled(error: str, stack: str) -> None:
        def write() -> None:
            if holds():  # a process that was stopped for that long finds itself taken over
                record_failure(stage, store, error, launch=runtime.launch, trace=f"{error}\n\n{stack}")

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(RECORD_SECONDS)  # the storage may be what hangs
        on_stall(error)

    try:
        with watched(runtime.stall_minutes, stalled):
            store.claim(stage, is_new=True)
            run()
    except Exception as error:  # the one place that catches: whatever went wrong belongs on the stage's record
        line = one_line(error)
        if not holds():
            log.warning("stage %s, which another launch has taken over: %s", stage.id, line)
            raise StoppedError from error
        record_failure(stage, store, line, launch=runtime.launch, trace=redacted(traceback.format_exc()))
        return line
    return None
