"""Where what a command gives goes: documents and frames to a file or the terminal, what is amiss to stderr."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError
from grid.contract.files.local_files import check_link, write_local
from grid.contract.terminal import not_written, tell
from grid.contract.text import encoding_of, in_encoding

if TYPE_CHECKING:
    import polars as pl

    from analysis.document import Document


def warn(problems: Sequence[str]) -> None:
    for problem in problems:
        tell(f"warning: {problem}", sys.stderr)


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
            not_written(sys.stdout, error)
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
