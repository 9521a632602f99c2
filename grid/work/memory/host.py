"""How much of a machine's memory a stage's worker takes: seen while it runs, and kept on the storage for those that are
alike. Linux alone tells it; elsewhere nothing is known."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from grid.contract.files.local_files import OddFileError
from grid.contract.parsing import parse_object
from grid.plan import Stage
from grid.store.store import Store
from grid.work.memory.gpu import FOLDER, memory_key

_PROCESS = Path("/proc/self")


def forget_peak() -> None:
    """From now on the most memory is that of what comes."""
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most that this process had since then, without the files that it shares with others; 0 where nobody knows."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
        kib = {
            name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value
        }
        return max(0, 1024 * (kib["VmHWM"] - kib["RssFile"] - kib["RssShmem"]))
    except (OSError, KeyError, ValueError):
        return 0


def kept_bytes(stage: Stage, store: Store) -> int:
    """What stages like this one took before; 0 where nothing was kept that can be read."""
    try:
        taken = int(parse_object(store.read(_file(stage)))["taken"])
    except (FileNotFoundError, OddFileError, ValueError, TypeError, KeyError):
        return 0
    return max(0, taken)


def keep_bytes(stage: Stage, store: Store, taken: int) -> None:
    store.write(_file(stage), json.dumps({"taken": taken}).encode())


def _file(stage: Stage) -> str:
    return f"{FOLDER}/{memory_key(stage)}-host.json"
