"""Which process is at which stage of a grid, by the leases on its storage; to end one certainly in the middle."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from grid.contract.signs import numbered
from tests.launching import signature

CONTROLLER_TITLE = "ray::TrainController"  # what leads a group of teachers' workers


@dataclass(frozen=True)
class Worker:
    """A process that holds the lease of the stage in a folder."""

    folder: Path
    pid: int

    @property
    def stage(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    def is_at_it(self) -> bool:
        return not (self.folder / "record.json").exists() and _holder(self.folder) == self.pid

    def has_saved(self) -> bool:
        """Whether something of the stage would outlive its process."""
        return (self.folder / "checkpoint.pt").exists()

    def stop(self) -> bool:
        """Halt it in the middle of the stage; False where it was past that."""
        try:
            process = psutil.Process(self.pid)
            process.suspend()
            if self.is_at_it() and process.status() == psutil.STATUS_STOPPED:
                return True
            process.resume()
        except psutil.NoSuchProcess:
            pass
        return False

    def kill(self) -> bool:
        """kill -9 in the middle of the stage; False, and nothing done, where it was past that."""
        if not self.stop():
            return False
        process = psutil.Process(self.pid)
        process.send_signal(signal.SIGKILL)
        until = time.monotonic() + 20  # its parent may be slow to look for its end
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
            time.sleep(0.01)
        return True


def workers(storage: Path, *kinds: str) -> list[Worker]:
    """Of the stages that are being worked on, by processes that live; kinds: teachers, logits, cells."""
    folders = {path.parent for kind in kinds for path in storage.glob(f"{kind}/*/lease-*.json")}
    held = [Worker(folder, pid) for folder in sorted(folders) if (pid := _holder(folder)) is not None]
    return [worker for worker in held if psutil.pid_exists(worker.pid) and worker.is_at_it()]


def title(process: psutil.Process) -> str:
    """What Ray calls a process by what it does; empty for one that is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _holder(folder: Path) -> int | None:
    try:
        leases = numbered(path.name for path in folder.iterdir())
        return int(json.loads((folder / leases[max(leases)]).read_bytes())["pid"]) if leases else None
    except (OSError, ValueError):  # given back at this moment, or being written
        return None


class Ledger:
    """What of a storage was seen to be done: it has to stay as it was."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.seen: dict[str, tuple[int, int]] = {}
        self.damaged: dict[str, tuple[int, int]] = {}

    def look(self) -> None:
        for path, facts in _signature(self.storage).items():
            if path not in self.seen and self.damaged.get(path) != facts and _is_done(Path(path)):
                self.seen[path] = facts

    def forget(self, folder: Path) -> None:
        """A stage that was damaged may be done again; its record stays until that is noticed."""
        path = str(folder / "record.json")
        self.seen.pop(path, None)
        self.damaged |= {known: facts for known, facts in _signature(self.storage).items() if known == path}

    def lost(self) -> list[str]:
        return sorted(self.seen.keys() - _signature(self.storage).keys())

    def recomputed(self) -> list[str]:
        now = _signature(self.storage)
        return sorted(path for path, facts in self.seen.items() if now.get(path, facts) != facts)


def _is_done(record: Path) -> bool:
    """Or a record that says what of the stage was found damaged."""
    try:
        return bool(json.loads(record.read_bytes())["status"] == "done")
    except (OSError, ValueError):
        return False


def _signature(storage: Path) -> dict[str, tuple[int, int]]:
    while True:
        try:
            return signature(storage)
        except FileNotFoundError:  # gone between two looks: there is another one, or it is lost
            continue
