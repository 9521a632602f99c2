"""Ctrl-C, or SIGTERM, once and twice."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

log = logging.getLogger("kd_grid")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def on_first_signal(stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM has `stop` called, in a thread of its own; the second raises KeyboardInterrupt. Does
    nothing where this is not the main thread, which alone receives them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked, over = threading.Event(), threading.Event()

    def on_signal(signum: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    def wait() -> None:
        asked.wait()
        if over.is_set():
            return
        try:
            stop()
        except Exception:  # the second signal still leaves
            log.exception("what runs could not be told to stop")

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    threading.Thread(target=wait, name="stop", daemon=True).start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        over.set()
        asked.set()  # lets the thread end
