"""A launch in a process that is somebody else's, a notebook's or a script's: what it changes there is put back."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator

from grid.cluster import token
from grid.contract.credentials import RedactedFormatter, redact_tracebacks
from grid.interruption import SIGNALS
from grid.private import COMPILER_CACHES

OF_RAY = ("RAY_", "TUNE_")  # how the variables of its environment begin
STDERR = 2


@contextlib.contextmanager
def left_as_found() -> Iterator[None]:
    """Puts back signal handlers, the hooks for tracebacks, and the variables that a launch sets in the environment.
    While it lasts, tracebacks that no code has caught are shown without credentials."""
    hooks, variables = (sys.excepthook, threading.excepthook), _variables()
    redact_tracebacks()
    try:
        with _signals_as_found():
            yield
    finally:
        sys.excepthook, threading.excepthook = hooks
        if variables != _variables():
            for name in _variables():
                del os.environ[name]
            os.environ.update(variables)
            token.read_again()


@contextlib.contextmanager
def _signals_as_found() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone may set them
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: what is not Python's cannot be set from here
                signal.signal(number, handler)


@contextlib.contextmanager
def logged_to_stderr() -> Iterator[None]:
    """Has what Python code prints and logs, from INFO, written to the descriptor of stderr, which a launch has led to
    its log. In a notebook sys.stdout and sys.stderr are no descriptors, and handlers may have been added."""
    # Never closed: a library may keep it, as it would have kept sys.stderr.
    stream = os.fdopen(STDERR, "w", buffering=1, closefd=False, encoding="utf-8", errors="backslashreplace")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactedFormatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root = logging.root
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        stream.flush()


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in COMPILER_CACHES or name.startswith(OF_RAY)}
