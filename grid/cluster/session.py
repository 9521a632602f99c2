"""Start or join a Ray, keep its chatter in a file, and know what it offers."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from grid.errors import UserError
from grid.spec import Resources

# Read by Ray when it is imported: no usage report, no logger callbacks, and teachers that end within a second.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

# Trial configurations and results are small: the arrays are read from the storage.
OBJECT_STORE_BYTES = 100 * 2**20

CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Share:
    """What one worker holds."""

    cpus: int
    gpus: float

    def as_dict(self) -> dict[str, float]:
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


@dataclass(frozen=True)
class Capacity:
    """What Ray offers, and how the grid divides it: lanes for teachers beside slots for cells."""

    cpus: float
    gpus: float
    teacher_worker: Share
    teacher_workers: int
    cell: Share
    concurrency: int | None

    @classmethod
    def of(cls, resources: Mapping[str, float], wanted: Resources) -> Capacity:
        """Raises UserError where a teacher or a cell could never be scheduled, which Ray would wait for in silence."""
        cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
        teacher_gpus = wanted.gpus_per_teacher_worker
        cell_gpus = wanted.gpus_per_cell
        capacity = cls(
            cpus=cpus,
            gpus=gpus,
            teacher_worker=Share(
                wanted.cpus_per_teacher_worker, (1.0 if gpus else 0.0) if teacher_gpus is None else teacher_gpus
            ),
            teacher_workers=wanted.teacher_workers,
            cell=Share(wanted.cpus_per_cell, (0.25 if gpus else 0.0) if cell_gpus is None else cell_gpus),
            concurrency=wanted.concurrency,
        )
        for what, share, count in (
            ("a teacher", capacity.teacher_worker, capacity.teacher_workers),
            ("a cell", capacity.cell, 1),
        ):
            if share.cpus * count > cpus or share.gpus * count > gpus:
                raise UserError(
                    f"{what} asks for {share.cpus * count} CPUs and {share.gpus * count:g} GPUs, Ray offers {cpus:g} "
                    f"and {gpus:g}: lower resources in the grid (--set resources....=) or use a larger cluster"
                )
        return capacity

    def lanes(self, jobs: int) -> int:
        """Teachers trained at a time: up to half of what there is, at least one."""
        per = self.teacher_workers
        by_cpu = self.cpus / 2 // (self.teacher_worker.cpus * per)
        by_gpu = self.gpus / 2 // (self.teacher_worker.gpus * per) if self.teacher_worker.gpus else by_cpu
        return int(max(1, min(jobs, by_cpu, by_gpu)))

    def slots(self, busy_lanes: int) -> int:
        """Cells that fit beside so many busy lanes; cells are never fewer than one once no lane is busy."""
        used = self.teacher_workers * busy_lanes
        slots = (self.cpus - used * self.teacher_worker.cpus) // self.cell.cpus
        if self.cell.gpus:
            slots = min(slots, (self.gpus - used * self.teacher_worker.gpus) // self.cell.gpus)
        return int(max(0, min(slots, self.concurrency or slots)))


@contextlib.contextmanager
def session(address: str | None, *, cpus: int | None) -> Iterator[dict[str, float]]:
    """A Ray to work on; yields its resources. address None starts one here and ends it afterwards."""
    settings = dict(QUIET)
    if address is None:
        # A session on one machine needs no token; a cluster keeps the authentication it was started with.
        settings["RAY_AUTH_MODE"] = "disabled"
    else:
        _check_reachable(address)
    os.environ.update({key: value for key, value in settings.items() if key not in os.environ})
    import ray

    common = {"logging_level": "error", "log_to_driver": False}
    try:
        if address is None:
            ray.init(
                num_cpus=cpus or len(os.sched_getaffinity(0)),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **common,
            )
        else:
            ray.init(address=address, **common)
    except (ConnectionError, ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"--address {address}: cannot join a Ray there: {' '.join(str(error).split())}") from None
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray would try for minutes to reach a machine that does not answer."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # "auto", or a name that Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--address {address}: nothing answers there: {reason}") from None


def log_folder() -> str:
    """Where this session's Ray writes its own logs (workers' output among them)."""
    import ray

    node = ray._private.worker._global_node
    return f"{node.get_session_dir_path()}/logs" if node is not None else "the cluster's head node"


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[TextIO]:
    """Send everything written to stdout and stderr, by libraries in any language, to a file; yields the terminal."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = os.dup(1), os.dup(2)
    with open(log, "a", buffering=1) as file, os.fdopen(os.dup(out), "w", buffering=1) as terminal:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield terminal
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.close(out)
            os.close(err)
