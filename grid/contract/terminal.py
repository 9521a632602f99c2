"""What is told on stdout and stderr, whoever reads it, or nobody."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

from grid.contract.text import shown_on

NO_READER = {errno.EPIPE, errno.EIO}  # of a pipe, of a terminal


class StdoutError(Exception):
    """stdout takes no more, as on a full disk."""


def tell(text: str, stream: TextIO | None = None, *, end: str = "\n") -> None:
    """Print, in silence where nobody reads any more (`| head`, a closed terminal), and without what the terminal cannot
    show or would take for a command: much of what is told was written by whoever could write to the storage.

    Raises StdoutError."""
    stream = stream or sys.stdout
    try:
        print(shown_on(stream, text), end=end, file=stream, flush=True)
    except OSError as error:
        not_written(stream, error)


class Lasting(io.TextIOBase):
    """A stream that outlives its reader, its terminal and its disk: what it cannot take is left out. A grid is worth
    more than its lines."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._error: OSError | None = None

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def check(self) -> None:
        """Raises StdoutError where something was left out that somebody could have read."""
        if self._error is not None:
            not_written(self.stream, self._error)

    def _try(self, act: Callable[[], object]) -> None:
        if self._error is None:
            try:
                act()
            except OSError as error:
                self._error = error


def not_written(stream: TextIO, error: OSError) -> None:
    """What is left in the stream's buffers goes nowhere, the interpreter's own flush at its end included. Raises
    StdoutError where it is stdout, and somebody could have read it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if error.errno not in NO_READER and stream is sys.stdout:
        raise StdoutError(f"stdout: {error.strerror or error}") from None
