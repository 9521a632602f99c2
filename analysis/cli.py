"""`python -m analysis` and `kd-analysis`: tables from a storage, without running anything."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.errors import AnalysisError

DONE, BAD_INPUT = 0, 2


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="kd-analysis", description="Tables of a distillation grid, from its records.")
    commands = parse.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in (
        ("table", "gains, compression, what validation selects and what each model costs, as markdown"),
        ("compare", "our results beside the published ones that the grid's file states, as markdown"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("grid", nargs="?", help="the grid's name (default: the one launched last)")
        command.add_argument(
            "--storage", default="./runs", metavar="PATH|URL", help="where results live (default: ./runs)"
        )
        command.add_argument("--output", type=Path, metavar="FILE", help="write there instead of to the terminal")
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        text = {"table": table, "compare": compare}[args.command](args.storage, args.grid)
    except AnalysisError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"error: --storage {args.storage}: {error.strerror or error}", file=sys.stderr)
        return BAD_INPUT
    if args.output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without the arrows still shows the table
        print(text, end="")
        return DONE
    try:
        args.output.write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"error: --output {args.output}: {error.strerror or error}", file=sys.stderr)
        return BAD_INPUT
    return DONE


def table(storage: str, grid: str | None = None) -> str:
    """The gains of a grid, what validation selects and what each model costs, as markdown."""
    # polars and scipy come with them: --help does not wait.
    from analysis.load import load_grid
    from analysis.tables import markdown_table

    return markdown_table(load_grid(storage, grid))


def compare(storage: str, grid: str | None = None) -> str:
    """A grid's results beside the published ones, as markdown."""
    from analysis.compare import markdown_comparison
    from analysis.load import load_grid

    return markdown_comparison(load_grid(storage, grid))
