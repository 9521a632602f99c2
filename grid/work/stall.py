"""A stage that does not get on is ended: a model's code that waits for ever, a file system that does not answer."""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

from grid.contract.credentials import redacted
from kd.machine.alive import last_told, tell_alive

LOOKS = 20  # so often within the time that it may take


@contextlib.contextmanager
def watched(minutes: float, on_stall: Callable[[str, str], None]) -> Iterator[None]:
    """While this context lasts, `on_stall` is called from another thread, once, when nothing was finished for so long:
    with the reason, and where this thread stood. Time in which the whole process stood still does not count."""
    tell_alive()
    over, limit, thread = threading.Event(), 60 * minutes, threading.get_ident()

    def watch() -> None:
        told, looks = last_told(), 0
        while not over.wait(limit / LOOKS):
            looks = looks + 1 if last_told() == told else 0
            told = last_told()
            if looks > LOOKS:
                frame = sys._current_frames().get(thread)
                stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
                on_stall(_reason(minutes), redacted(stack))
                return

    watcher = threading.Thread(target=watch, name="stall", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _reason(minutes: float) -> str:
    return (
        f"StalledError: no step, batch, picture or file was finished for {minutes:g} minutes: its model's code or the "
        "storage may hang; failure.txt beside its record says where it stood; resources.stall_minutes is the limit"
    )
