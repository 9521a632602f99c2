"""Memory that is taken from the machine until Ray's memory monitor ends a worker, and given back at once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import psutil

GIB = 2**30
# What the grid and its Ray take by themselves stays below the limit; above it some is left, for others.
ROOM, SPARE = 7 * GIB, 3 * GIB
ABOVE = GIB // 2
SECONDS = 20.0

_TAKE = "import sys, time; taken = b'\\1' * int(sys.argv[1]); time.sleep(60)"


def limit() -> float | None:
    """The share of the memory at which the monitor is to act; None where too little of it is free."""
    memory = psutil.virtual_memory()
    if memory.available < ROOM + SPARE:
        return None
    return float((memory.total - memory.available + ROOM) / memory.total)


def squeeze(share: float, happened: Callable[[], bool]) -> bool:
    """Take memory until that share of it is in use, and hold it until something happens, or for a while; whether it
    did. All that was taken is given back."""
    memory = psutil.virtual_memory()
    size = int(share * memory.total + ABOVE) - (memory.total - memory.available)
    balloon = subprocess.Popen([sys.executable, "-c", _TAKE, str(max(0, size))], stdout=subprocess.PIPE)
    try:
        until = time.monotonic() + SECONDS
        while not happened() and time.monotonic() < until:
            time.sleep(0.02)
        return happened()
    finally:
        balloon.kill()
        balloon.communicate()
