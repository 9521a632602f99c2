"""Launch through a Ray Client (`ray://HOST:PORT`): the launching process itself runs on the cluster.

Ray Tune cannot be driven from outside a cluster with a schedule of one's own. So an actor there runs the same command
with `--address auto` in a process, and its output comes back here as it is written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from grid.cluster.ray_internals.core import head_resource
from grid.cluster.session import session
from grid.contract.program.version import parts
from grid.contract.text import shown_on
from grid.errors import one_line

POLL_SECONDS = 0.5
INTERRUPT_SECONDS = 60.0


class Driver:
    """Runs on the cluster: one launch in a process of its own."""

    def __init__(self, spec_json: str, options: Sequence[str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kd-grid-"))
        grid = self.folder / "grid.json"
        grid.write_text(spec_json, encoding="utf-8")
        self.outputs = (self.folder / "out", self.folder / "err")
        self.read = [0, 0]
        command = [sys.executable, str(parts()["launch"]), "--grid", str(grid), "--address", "auto", *options]
        with open(self.outputs[0], "wb") as out, open(self.outputs[1], "wb") as err:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=err, env={**os.environ, "PYTHONUNBUFFERED": "1"}
            )

    def poll(self) -> tuple[str, str, int | None]:
        """What was written since the last call to stdout and to stderr, and the exit status once it has ended."""
        status = self.process.poll()  # before reading, so that nothing written before the end is missed
        texts = []
        for i, path in enumerate(self.outputs):
            with open(path, "rb") as file:
                file.seek(self.read[i])
                data = file.read()
            whole = data if status is not None else data[: data.rfind(b"\n") + 1]
            self.read[i] += len(whole)
            texts.append(whole.decode(errors="replace"))
        if status is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        return texts[0], texts[1], status

    def interrupt(self) -> None:
        """As Ctrl-C would; SIGINT itself is blocked in what Ray starts."""
        self.process.send_signal(signal.SIGTERM)


def launch_remotely(address: str, spec_json: str, options: Sequence[str]) -> int:
    """Run a grid on the cluster behind a Ray Client address; returns the launch's exit status.

    `options`: of the command line there. Ctrl-C here interrupts the launch there; status 1 if it gets out of reach.
    """
    with session(address, cpus=None):
        import ray

        # On the head, where keys are that only a launch needs.
        place = {"num_cpus": 0, "resources": {head_resource(): 0.001}}
        driver = ray.remote(Driver).options(**place).remote(spec_json, list(options))

        def follow(until: float | None = None) -> int | None:
            while until is None or time.monotonic() < until:
                out, err, status = ray.get(driver.poll.remote())
                _show(out, sys.stdout)
                _show(err, sys.stderr)
                if status is not None:
                    return int(status)
                time.sleep(POLL_SECONDS)
            return None

        try:
            try:
                status = follow()
            except KeyboardInterrupt:
                ray.get(driver.interrupt.remote())
                status = follow(time.monotonic() + INTERRUPT_SECONDS)
        except (ConnectionError, ray.exceptions.RayError) as error:
            how = "it may have ended; the same command goes on with what it has saved"
            _show(
                f"error: --address {address}: the launch there is out of reach, and {how}: {one_line(error)}\n",
                sys.stderr,
            )
            status = 1
        return 130 if status is None else status


def _show(text: str, stream: TextIO) -> None:
    """What the cluster says: lines without styles of their own, as they are piped there."""
    if text:
        with contextlib.suppress(OSError):  # as for what a launch here says
            stream.write(shown_on(stream, text))
            stream.flush()
