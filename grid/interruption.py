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
def on_first_signal(stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """The first SIGINT or SIGTERM has `stop` called, in a thread of its own; the second raises KeyboardInterrupt. Does
    nothing where this is not the main thread, which alone receives them.

    Yields what has KeyboardInterrupt raised at once, called from another thread while this context lasts: a signal,
    since nothing else reaches a thread that waits in a library."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    asked, over, lock = threading.Event(), threading.Event(), threading.Lock()
    receiver = threading.get_ident()

    def on_signal(signum: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    def leave() -> None:
        with lock:
            if not over.is_set():
                over.set()
                asked.set()
                signal.pthread_kill(receiver, signal.SIGINT)

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
        yield leave
    finally:
        with lock:
            over.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        asked.set()  # lets the thread end
