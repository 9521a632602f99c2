"""Start or join a Ray, keep its chatter in a file, and know what it offers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from grid.errors import UserError
from grid.spec.grid import Resources

# Read by Ray when it is imported: no usage report, no logger callbacks, and teachers that end within a second.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # nothing may start a second Ray once this one is shut down
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # While every cell waits for its teacher Tune has no trial at all; after these seconds it would look for the first.
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "inf",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S_AUTOSCALER": "inf",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

# Trial configurations and results are small: the arrays are read from the storage.
OBJECT_STORE_BYTES = 100 * 2**20

CONNECT_SECONDS = 10.0

# How often a stage is retried, from its checkpoint, after the death of a worker.
MAX_WORKER_DEATHS = 3


@dataclass(frozen=True)
class Share:
    """What one worker holds."""

    cpus: int
    gpus: float

    def as_dict(self) -> dict[str, float]:
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


@dataclass
class _Free:
    """What is left of a node while shares are placed on it."""

    cpus: float
    gpus: float

    def fits(self, share: Share) -> bool:
        return share.cpus <= self.cpus and share.gpus <= self.gpus

    def take(self, share: Share) -> None:
        self.cpus -= share.cpus
        self.gpus -= share.gpus


@dataclass(frozen=True)
class Capacity:
    """What Ray offers, and how the grid divides it: lanes for teachers beside slots for cells.

    nodes: CPUs and GPUs of each node; a worker must fit on one.
    """

    nodes: tuple[tuple[float, float], ...]
    teacher_worker: Share
    teacher_workers: int
    cell: Share
    concurrency: int | None

    @classmethod
    def of(cls, nodes: Sequence[Mapping[str, float]], wanted: Resources) -> Capacity:
        """Raises UserError where a teacher or a cell could never be scheduled, which Ray would wait for in silence."""
        gpus = any(node.get("GPU", 0) for node in nodes)
        teacher_gpus = wanted.gpus_per_teacher_worker
        cell_gpus = wanted.gpus_per_cell
        capacity = cls(
            nodes=tuple((node.get("CPU", 0), node.get("GPU", 0)) for node in nodes),
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
            if not capacity._place(capacity._free(), share, count):
                offered = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in capacity.nodes)
                raise UserError(
                    f"{what} asks for {count} x ({share.cpus} CPUs and {share.gpus:g} GPUs), Ray's nodes offer "
                    f"{offered}: lower the grid's resources (--set resources....=) or use larger nodes"
                )
        return capacity

    def lanes(self, jobs: int) -> int:
        """Teachers trained at a time: as many as fit into half of what there is, at least one."""
        free = self._free()
        fitting = 0
        while self._place(free, self.teacher_worker, self.teacher_workers):
            fitting += 1
        return max(1, min(jobs, fitting // 2))

    def slots(self, busy_lanes: int) -> int:
        """Cells that fit beside so many busy lanes."""
        free = self._free()
        self._place(free, self.teacher_worker, self.teacher_workers * busy_lanes)
        slots = 0
        for node in free:
            while node.fits(self.cell):
                node.take(self.cell)
                slots += 1
        return min(slots, self.concurrency or slots)

    @staticmethod
    def fitting(share: Share, free: Mapping[str, float]) -> int:
        """How many such workers fit into what is free."""
        by_cpu = free.get("CPU", 0) // share.cpus
        return int(min(by_cpu, free.get("GPU", 0) // share.gpus) if share.gpus else by_cpu)

    def _free(self) -> list[_Free]:
        return [_Free(cpus, gpus) for cpus, gpus in self.nodes]

    @staticmethod
    def _place(free: list[_Free], share: Share, count: int) -> bool:
        """Put `count` shares on the nodes with most CPUs left; False where one does not fit any more."""
        for _ in range(count):
            node = max((node for node in free if node.fits(share)), key=lambda node: node.cpus, default=None)
            if node is None:
                return False
            node.take(share)
        return True


@dataclass(frozen=True)
class Dashboard:
    """Where Ray's dashboard listens."""

    host: str
    port: int

    @classmethod
    def at(cls, text: str) -> Dashboard:
        """Of HOST:PORT. Raises UserError for anything else."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UserError(f"--dashboard {text}: expected HOST:PORT, such as localhost:8265")
        return cls(host.strip("[]"), int(port))

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def check(self) -> None:
        """Raises UserError where it is not installed, or cannot listen there."""
        quiet(None)
        try:
            import ray.dashboard.optional_deps  # noqa: F401
        except ImportError as error:
            how = "pip install -e '.[dashboard]' -c constraints.txt"
            raise UserError(f"--dashboard: {error}; Ray's dashboard comes with {how}") from None
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((self.host, self.port))
        except OSError as error:
            raise UserError(f"--dashboard {self.host}:{self.port}: cannot listen there: {error.strerror}") from None


def quiet(address: str | None) -> None:
    """Settings that Ray reads when it is imported: before any of it is."""
    settings = dict(QUIET)
    if address is None:
        # A session on one machine needs no token; a cluster keeps the authentication it was started with.
        settings["RAY_AUTH_MODE"] = "disabled"
    os.environ.update({key: value for key, value in settings.items() if key not in os.environ})


@contextlib.contextmanager
def session(
    address: str | None, *, cpus: int | None, dashboard: Dashboard | None = None
) -> Iterator[list[dict[str, float]]]:
    """A Ray to work on; yields the resources of each node. address None starts one here, with Ray's dashboard if asked.

    It is left at the end of the context, or by an exception with the end of the process.
    """
    quiet(address)
    if address is not None:
        _check_reachable(address)
    import ray

    on_sigterm = signal.getsignal(signal.SIGTERM)
    common = {"logging_level": "error", "log_to_driver": False}
    try:
        if address is None:
            ray.init(
                address="local",  # never one that happens to run on this machine
                num_cpus=cpus or len(os.sched_getaffinity(0)),
                include_dashboard=dashboard is not None,
                **({"dashboard_host": dashboard.host, "dashboard_port": dashboard.port} if dashboard else {}),
                object_store_memory=OBJECT_STORE_BYTES,
                **common,
            )
        else:
            ray.init(address=address, runtime_env=_with_this_code(), **common)
    except (ConnectionError, ValueError, RuntimeError, ImportError) as error:
        what = "Ray does not start here" if address is None else f"--address {address}: cannot join a Ray there"
        raise UserError(f"{what}: {' '.join(str(error).split())}") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # ray.init puts its own in place
    # Not after an exception: teachers' threads may still be inside Ray then, and whoever touches a Ray that is shut
    # down has the process ended with status 1. It ends with the process instead.
    yield [node["Resources"] for node in ray.nodes() if node["Alive"]]
    ray.shutdown()


def _with_this_code() -> dict[str, Any]:
    """This project's code goes to the workers, which may have none, or another version. A job has been given its own
    by `ray job submit`."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    root = Path(__file__).parents[2]
    modules = [str(root / name) for name in ("grid", "kd", "analysis", "launch.py")]
    return {"py_modules": modules, "excludes": ["__pycache__/", "*.pyc"]}


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
    terminal = os.fdopen(os.dup(out), "w", buffering=1)
    with open(log, "a", buffering=1) as file:
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
            with contextlib.suppress(BrokenPipeError):  # its reader may be gone
                terminal.close()
