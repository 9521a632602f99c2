"""Where what a command gives goes: documents and frames to a file or the terminal, what is amiss to stderr."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.arguments import output_format
from analysis.errors import AnalysisError

if TYPE_CHECKING:
    import polars as pl

    from analysis.document import Document


def warn(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)


def write_document(document: Document, problems: Sequence[str], args: argparse.Namespace) -> None:
    from analysis import render

    how = output_format(args)
    if args.only is not None and args.only not in document.tables:
        raise AnalysisError(f"--only {args.only}: no such table here; there are {', '.join(document.tables)}")
    if how not in render.DOCUMENTS or args.only is not None:
        warn(problems)  # a table alone has no notes that name them
    if how in render.DOCUMENTS:
        _write(render.DOCUMENTS[how](document if args.only is None else document.only(args.only)).encode(), args)
        return
    # Data has no place for several tables: the first is the main one.
    name = args.only or next(iter(document.tables))
    _write(render.data(document.tables[name].frame, how), args)


def write_frame(frame: pl.DataFrame, problems: Sequence[str], args: argparse.Namespace) -> None:
    from analysis import render

    warn(problems)
    how = output_format(args)
    if how in render.DOCUMENTS:
        _write(render.DOCUMENTS[how](render.as_document(frame, args.command)).encode(), args)
    else:
        _write(render.data(frame, how), args)


def _write(content: bytes, args: argparse.Namespace) -> None:
    if args.output is None:
        if isinstance(sys.stdout, io.TextIOWrapper) and output_format(args) != "parquet":
            sys.stdout.reconfigure(errors="replace")  # a terminal without the arrows still shows the table
            print(content.decode(), end="")
        elif hasattr(sys.stdout, "buffer"):
            sys.stdout.buffer.write(content)
        else:
            sys.stdout.write(content.decode())
        return
    try:
        args.output.write_bytes(content)
    except OSError as error:
        raise AnalysisError(f"--output {args.output}: {error.strerror or error}") from None
