"""Whether this process gets on: what computes says so after each step, batch, picture and file."""

from __future__ import annotations

import time

_told = time.monotonic()


def tell_alive() -> None:
    """Something was finished. Cheap enough for each picture."""
    global _told
    _told = time.monotonic()


def idle_seconds() -> float:
    """Since something was last finished."""
    return time.monotonic() - _told
