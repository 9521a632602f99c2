"""Ctrl-C, or SIGTERM, or a terminal that is closed (SIGHUP), once and twice."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

# What is at work has so long to save a checkpoint and leave: some batches, the write of a large model.
STOP_SECONDS = 120.0

log = logging.getLogger("kd_grid")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def to_mind() -> list[signal.Signals]:
    """The signals, without SIGHUP in a process that was started to ignore it, as nohup does."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in SIGNALS if number is not signal.SIGHUP or not ignored]


@contextlib.contextmanager
def deaf_to_hangup() -> Iterator[None]:
    """What is started in this context ignores SIGHUP, which a terminal that is closed sends to all that runs in it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        if before is not None:  # else it is not Python's, and cannot be set from here
            signal.signal(signal.SIGHUP, before)


@contextlib.contextmanager
def on_first_signal(stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """The first SIGINT, SIGTERM or SIGHUP has `stop` called, in a thread of its own. The second raises
    KeyboardInterrupt, and so does the end of STOP_SECONDS after the first. Does nothing where this is not the main
    thread, which alone receives them.

    Yields what has KeyboardInterrupt raised at once, called from another thread while this context lasts: a signal,
    since nothing else reaches a thread that waits in a library."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    asked, over, lock = threading.Event(), threading.Event(), threading.Lock()
    receiver = threading.get_ident()

    def on_signal(signum: int, frame: Any) -> None:
        if not asked.is_set():
            asked.set()
        elif signum != signal.SIGHUP:  # a terminal and its shell may both send one
            raise KeyboardInterrupt

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
        if not over.wait(STOP_SECONDS):
            log.warning("what runs has not stopped within %.0f s and is left", STOP_SECONDS)
            leave()

    before = {number: signal.signal(number, on_signal) for number in to_mind()}
    threading.Thread(target=wait, name="stop", daemon=True).start()
    try:
        yield leave
    finally:
        with lock:
            over.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        asked.set()  # lets the thread end
