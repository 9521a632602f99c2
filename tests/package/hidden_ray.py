"""A Ray whose node has this project's dependencies, and sees neither its checkout nor its installation."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.package.steps import SkippedError, StepError

START_SECONDS = 180.0


@dataclass(frozen=True)
class HiddenRay:
    """environment: what whoever joins it needs; in it, `--address auto` means this Ray."""

    address: str
    client_address: str
    dashboard: str
    environment: dict[str, str]


@contextlib.contextmanager
def hidden_ray(python: Path, hidden: Sequence[Path]) -> Iterator[HiddenRay]:
    """A head, started by the Ray beside `python`, for whose processes the folders `hidden` are empty, as they are on
    another machine. It takes jobs. Needs root, for a mount namespace."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        raise SkippedError("hiding the checkout from a node needs root and unshare")
    port, client_port, dashboard_port = _free_ports(3)
    folder = tempfile.mkdtemp(prefix="kdp", dir="/tmp")  # the paths of Ray's sockets may have 107 bytes
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    start = [str(python.with_name("ray")), "start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    start += [f"--ray-client-server-port={client_port}", "--node-ip-address=127.0.0.1"]
    start += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]
    start += ["--object-store-memory=200000000", f"--temp-dir={folder}"]
    empty = [f"mount -t tmpfs none {shlex.quote(str(path))}" for path in hidden]
    script = " && ".join([*empty, f"exec {shlex.join(start)}"])
    path = f"{python.parent}:{os.environ['PATH']}"
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")}
    with open(f"{folder}/said", "w+") as said:
        process = psutil.Popen(
            ["unshare", "--mount", "sh", "-c", script],
            cwd="/",
            env={**inherited, **environment, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for(process, (port, client_port, dashboard_port), Path(said.name))
            yield HiddenRay(
                address=f"127.0.0.1:{port}",
                client_address=f"ray://127.0.0.1:{client_port}",
                dashboard=f"http://127.0.0.1:{dashboard_port}",
                environment={**environment, "RAY_ADDRESS": f"127.0.0.1:{port}"},
            )
        finally:
            _end(process)
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for(process: psutil.Popen, ports: Sequence[int], said: Path) -> None:
    until = time.monotonic() + START_SECONDS
    for port in ports:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise StepError(f"the Ray of another machine does not start:\n{said.read_text()}")
            time.sleep(0.5)


def _end(process: psutil.Popen) -> None:
    """By the ids of what it has started."""
    started = [process, *process.children(recursive=True)] if process.is_running() else []
    for one in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(started, timeout=20)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]
