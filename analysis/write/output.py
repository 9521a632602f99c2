"""Where what a command gives goes: documents and frames to a file or the terminal, what is amiss to stderr."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from analysis.errors import AnalysisError
from grid.contract.local_files import check_link, write_local
from grid.contract.text import encoding_of, in_encoding, shown_on

NO_READER = {errno.EPIPE, errno.EIO}  # of a pipe, of a terminal

if TYPE_CHECKING:
    import polars as pl

    from analysis.document import Document


def tell(text: str, stream: TextIO | None = None, *, end: str = "\n") -> None:
    """Print, in silence where nobody reads any more (`| head`, a closed terminal), and without what the terminal cannot
    show or would take for a command: much of what is told was written by whoever could write to the storage.

    Raises AnalysisError where stdout takes no more, as on a full disk."""
    stream = stream or sys.stdout
    try:
        print(shown_on(stream, text), end=end, file=stream, flush=True)
    except OSError as error:
        _not_written(stream, error)


def warn(problems: Sequence[str]) -> None:
    for problem in problems:
        tell(f"warning: {problem}", sys.stderr)


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
        """Raises AnalysisError where something was left out that somebody could have read."""
        if self._error is not None:
            _not_written(self.stream, self._error)

    def _try(self, act: Callable[[], object]) -> None:
        if self._error is None:
            try:
                act()
            except OSError as error:
                self._error = error


def _not_written(stream: TextIO, error: OSError) -> None:
    """What is left in the stream's buffers goes nowhere, the interpreter's own flush at its end included. Raises
    AnalysisError where it is stdout, and somebody could have read it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if error.errno not in NO_READER and stream is sys.stdout:
        raise AnalysisError(f"stdout: {error.strerror or error}") from None


def write_document(document: Document, problems: Sequence[str], args: argparse.Namespace) -> None:
    from analysis.write import render

    how: str = args.format
    if args.only is not None and args.only not in document.tables:
        raise AnalysisError(f"--only {args.only}: no such table here; there are {', '.join(document.tables)}")
    if how not in render.DOCUMENTS or args.only is not None:
        warn(problems)  # a table alone has no notes that name them
    if how in render.DOCUMENTS:
        _write_text(document if args.only is None else document.only(args.only), args)
        return
    # Data has no place for several tables: the first is the main one.
    name = args.only or next(iter(document.tables))
    _write(render.data(document.tables[name].frame, how), args)


def write_frame(frame: pl.DataFrame, problems: Sequence[str], args: argparse.Namespace) -> None:
    from analysis.write import render

    warn(problems)
    how: str = args.format
    if how in render.DOCUMENTS:
        _write_text(render.as_document(frame, args.command), args)
    else:
        _write(render.data(frame, how), args)


def _write_text(document: Document, args: argparse.Namespace) -> None:
    from analysis.write.markdown import markdown
    from analysis.write.render import DOCUMENTS

    if args.output is None and args.format == "md":
        tell(markdown(document, encoding=encoding_of(sys.stdout)), end="")
    else:
        _write(DOCUMENTS[args.format](document).encode(), args)


def _write(content: bytes, args: argparse.Namespace) -> None:
    if args.output is None:
        if args.format != "parquet":
            tell(_in_ascii(content.decode(), args.format), end="")
            return
        try:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        except OSError as error:
            _not_written(sys.stdout, error)
        return
    write_asked(args.output, content)


def _in_ascii(text: str, how: str) -> str:
    """What stdout cannot hold, as the format itself spells it where it has a way to."""
    encoding = encoding_of(sys.stdout)
    if how == "json" and in_encoding(text, encoding) != text:
        return f"{json.dumps(json.loads(text))}\n"
    return text.encode(encoding, "xmlcharrefreplace").decode(encoding) if how == "html" else text


def write_asked(file: Path, content: bytes) -> None:
    """Write to where --output says: a file, a device or a pipe, through a link of the user's own too."""
    try:
        if file.is_symlink():
            check_link(file.lstat(), "it")
        file.write_bytes(content)
    except OSError as error:
        raise AnalysisError(f"--output {file}: {error.strerror or error}") from None


def write_below(root: str, path: str, content: bytes) -> None:
    """Publish a file in a folder that others may write to, a storage's for one: through no link of theirs."""
    try:
        write_local(root, path, content)
    except OSError as error:
        raise AnalysisError(f"{root}/{path}: {error.strerror or error}") from None
