"""Start or join a Ray, keep its chatter in a file, and know what it offers."""

from __future__ import annotations

import contextlib
import os
import signal
import site
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from grid.cluster import token
from grid.cluster.address import address_meant
from grid.cluster.ray_internals import core
from grid.cluster.ray_internals.names import check_core, check_libraries
from grid.contract.files.local_files import open_to_append
from grid.contract.program.imports import broken, missing_module
from grid.contract.program.installed import hint
from grid.contract.program.version import parts
from grid.errors import UserError
from grid.interruption import deaf_to_hangup
from grid.private import ray_folder

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

REASON_LENGTH = 300  # of what Ray says


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
            core.import_dashboard()
        except ImportError as error:
            if why := broken(error, "ray", missing_module(error) or "ray"):
                raise UserError(f"--dashboard: {why}") from None
            raise UserError(f"--dashboard: {error}; Ray's dashboard comes with {hint('dashboard')}") from None
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((self.host, self.port))
        except OSError as error:
            raise UserError(f"--dashboard {self.host}:{self.port}: cannot listen there: {error.strerror}") from None


def quiet(address: str | None) -> None:
    """Settings that Ray reads when it is imported: before any of it is. Raises as `token.check_file`."""
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    if address is None:
        token.ask_for()
    else:
        token.check_file()


@contextlib.contextmanager
def session(address: str | None, *, cpus: int | None, dashboard: Dashboard | None = None) -> Iterator[None]:
    """A Ray to work on. address None starts one here, with Ray's dashboard if asked.

    It is left at the end of the context, or by an exception with the end of the process.
    """
    quiet(address)
    if address is not None:
        address = address_meant(address)
    import ray

    launches_here = address is None or not address.startswith("ray://")  # else the launch over there looks
    if launches_here:
        check_core()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    common = {"logging_level": "error", "log_to_driver": False}
    try:
        if address is None:
            with deaf_to_hangup():  # its processes: the launch has their stages save what they have
                ray.init(
                    address="local",  # never one that happens to run on this machine
                    num_cpus=cpus or len(os.sched_getaffinity(0)),
                    include_dashboard=dashboard is not None,
                    **({"dashboard_host": dashboard.host, "dashboard_port": dashboard.port} if dashboard else {}),
                    object_store_memory=OBJECT_STORE_BYTES,
                    job_config=core.job_with_path(_not_installed()),
                    **{core.TEMPORARY_FOLDER: str(ray_folder())},
                    **common,
                )
        else:
            own_path = {} if address.startswith("ray://") else {"job_config": core.job_with_path([])}
            ray.init(address=address, runtime_env=_with_this_code(), **own_path, **common)
    except Exception as error:  # of any type: a node that does not start in time is a bare Exception
        what = "Ray does not start here" if address is None else f"--address {address}: cannot join a Ray there"
        if "ray[client]" in str(error):  # whose own hint is a Ray of any version
            why = _client_problem() or f"ray:// needs a package that is not installed: {hint('client')}"
            raise UserError(f"{what}: {why}") from None
        way_out = "; set RAY_TMPDIR to a folder with a shorter path" if "AF_UNIX path length" in str(error) else ""
        if address is not None and isinstance(error, ConnectionError | ray.exceptions.AuthenticationError):
            way_out = f"; {token.WAY_OUT}"
        raise UserError(f"{what}: {' '.join(str(error).split())[:REASON_LENGTH]}{way_out}") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # ray.init puts its own in place
    if launches_here:
        try:
            check_libraries()  # imported while Ray started
        except UserError:
            ray.shutdown()
            raise
    # Not after an exception: teachers' threads may still be inside Ray then, and whoever touches a Ray that is shut
    # down has the process ended with status 1. It ends with the process instead.
    yield
    ray.shutdown()


def _not_installed() -> list[str]:
    """The checkout that this program runs from; none where Python finds it by itself."""
    root = parts()["grid"].parent
    installed = {Path(place).resolve() for place in (*site.getsitepackages(), site.getusersitepackages())}
    return [] if root.resolve() in installed else [str(root)]


def _client_problem() -> str:
    """What Ray tells as a missing ray[client] though it is installed, or nothing: Ray asks for grpc alone, as here."""
    try:
        import grpc  # noqa: F401
    except ImportError as error:
        return broken(error, "grpc")
    return ""


def _with_this_code() -> dict[str, Any]:
    """This project's code goes to the workers, which may have none, or another version. A job has been given its own
    by `ray job submit`."""
    if core.job_variable() in os.environ:
        return {}
    return {"py_modules": [str(place) for place in parts().values()], "excludes": ["__pycache__/", "*.pyc"]}


def session_folder() -> Path:
    """Where the Ray that was started here keeps its session."""
    folder = core.session_path()
    assert folder is not None
    return Path(folder)


def log_folder() -> str:
    """Where this session's Ray writes its own logs (workers' output among them)."""
    folder = core.session_path()
    return f"{folder}/logs" if folder is not None else "the cluster's head node"


@contextlib.contextmanager
def output_to(root: str, log: str) -> Iterator[TextIO]:
    """Send everything written to stdout and stderr, by libraries in any language, to the file `log` below `root`;
    yields the terminal, in the encoding of this process's stdout. Raises UserError where something else lies there."""
    try:
        descriptor = open_to_append(root, log)
    except OSError as error:
        raise UserError(f"{root}/{log}: {error.strerror or error}") from None
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = os.dup(1), os.dup(2)
    terminal = os.fdopen(os.dup(out), "w", buffering=1, encoding=getattr(sys.stdout, "encoding", None))
    with os.fdopen(descriptor, "a", buffering=1) as file:
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
            with contextlib.suppress(OSError):  # its reader, its terminal or its disk may be gone
                terminal.close()
