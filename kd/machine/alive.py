"""Whether this process gets on: what computes says so after each step, batch, picture and file."""

from __future__ import annotations

import time

_told = time.monotonic()


def tell_alive() -> None:
    """Something was finished. Cheap enough for each picture."""
    global _told
    _told = time.monotonic()


def last_told() -> float:
    """When something was last finished, by `time.monotonic`."""
    return _told
