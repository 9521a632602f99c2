"""Processes of this machine, told apart from those of others and from earlier ones of the same number."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def machine() -> str:
    """This boot of this machine and its numbering of processes; empty where that cannot be told."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def born(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty for one that is not there, or has ended."""
    try:
        # The name, in parentheses, may hold anything.
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if facts[0] in "ZX" else facts[19]


def is_gone(where: Any, pid: Any, begun: Any) -> bool:
    """Whether a process has certainly ended, by the machine, number and time of birth that it told of itself; never
    known of another machine, nor of what is no such fact."""
    return type(pid) is int and isinstance(begun, str) and bool(where) and where == machine() and born(pid) != begun
