"""Whether this machine has the memory that a launch takes, before it takes it. Linux alone tells it."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

from grid.contract.units import sized
from grid.errors import UserError

_MACHINE = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
# Of a launch with two workers of tiny models: 3.1 to 3.5 GB in 17 processes, and 6.2 GiB of addresses in its own one.
LAUNCH_BYTES = 3 * 2**30
ADDRESS_BYTES = 8 * 2**30


def check_address_space() -> None:
    """Raises UserError where a process may map less than Ray and torch do: Ray aborts then, without a word."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < ADDRESS_BYTES:
        raise UserError(
            f"a process may take {sized(limit)} of addresses here, and Ray with torch maps more, most of which is "
            f"never used: lift the limit (ulimit -v unlimited), or set it to {sized(ADDRESS_BYTES)} at least"
        )


def short_of_memory() -> str:
    """What is to be said where a launch on a Ray of its own may not have enough; empty where it has."""
    free = available_bytes()
    if free is None or free >= LAUNCH_BYTES:
        return ""
    return (
        f"only {sized(free)} of memory is free here, and a launch with two workers takes some {sized(LAUNCH_BYTES)}: "
        "processes may be ended for lack of it; --cpus 1 takes less"
    )


def available_bytes() -> int | None:
    """What is free of this machine's memory, or of its control group's where that is less; None where nobody tells."""
    try:
        lines = _MACHINE.read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        limit, taken = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, max(0, limit - taken))
    return free
