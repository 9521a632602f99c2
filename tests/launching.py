"""Launch grids as a user would, in a process of their own, and end exactly what was started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml

from grid.contract.record import weights_file
from grid.store.records import record_from_json

ROOT = Path(__file__).parents[1]


def write_grid(folder: Path, grid: dict[str, object]) -> str:
    path = folder / f"{grid['name']}.yaml"
    path.write_text(yaml.safe_dump(grid), encoding="utf-8")
    return str(path)


class Launch:
    """`python launch.py ARGS`, with its output in files. piped: what it prints comes through `process.stdout`. program:
    where it lies."""

    def __init__(self, *args: str, folder: Path, piped: bool = False, program: Path = ROOT) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.err = folder / f"{time.monotonic_ns()}.out", folder / f"{time.monotonic_ns()}.err"
        self.seen: dict[int, psutil.Process] = {}
        with open(self.out, "w") as out, open(self.err, "w") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(program / "launch.py"), *args],
                cwd=folder,
                stdout=subprocess.PIPE if piped else out,
                stderr=err,
                text=True,
            )

    def finish(self, timeout: float = 300) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def wait_until(self, happened: Callable[[], bool], timeout: float = 240) -> None:
        """Wait for something on the storage; the launch must still be running then."""
        until = time.monotonic() + timeout
        while not happened():
            self.look()
            assert self.process.poll() is None, f"ended with {self.process.returncode}\n{self.text()}"
            if time.monotonic() > until:
                self.kill()
                raise TimeoutError(self.text())
            time.sleep(0.05)

    def look(self) -> None:
        """Remember the processes below the launch: Ray's would be orphans after a kill."""
        try:
            family = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        self.seen.update({process.pid: process for process in family})

    def interrupt(self, number: int = signal.SIGINT) -> None:
        self.look()
        self.process.send_signal(number)

    def interrupt_all(self, number: int) -> None:
        """The signal to the launch and to every process below it. Ray's head is the last to hear of it, and has told
        the launch by then that its node has ended: of all orders the one that Ray bears worst."""
        self.interrupt(number)
        heads = []
        for process in self.seen.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() == "gcs_server":
                    heads.append(process)
                else:
                    process.send_signal(number)
        time.sleep(1)
        for process in heads:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """kill -9 the launch and, by their ids, whatever processes it started."""
        self.look()
        self.process.kill()
        self.process.wait()
        for process in self.seen.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(self.seen.values(), timeout=20)

    def left_over(self, timeout: float = 180) -> list[psutil.Process]:
        """Processes it started that are still there after a while: Ray's agents look for their parent now and then."""
        _, alive = psutil.wait_procs(self.seen.values(), timeout=timeout)
        return [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]

    def text(self) -> str:
        return self.out.read_text() + self.err.read_text()


def records(storage: Path, kind: str = "*") -> list[Path]:
    return sorted(storage.glob(f"{kind}/*/record.json"))


def weights_of(storage: Path) -> dict[str, bytes]:
    """The weights of every model that is done, by its folder."""
    found = {}
    for path in records(storage):
        record = record_from_json(path.read_bytes())
        if record.weights_sha256 is not None:
            found[str(path.parent.relative_to(storage))] = (path.parent / weights_file(record)).read_bytes()
    return found


def signature(storage: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every record: it changes when a stage is computed again."""
    return {str(p): (os.stat(p).st_ino, os.stat(p).st_mtime_ns) for p in records(storage)}
