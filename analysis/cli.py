"""`python -m analysis` and `kd-analysis`: what a grid gave, from its storage alone, without running anything."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    import polars as pl

    from analysis.document import Document
    from analysis.load import Grid, Grids

DONE, BAD_INPUT = 0, 2
STORAGE = "./runs"

# By the ending of --output.
FORMATS = {"md": "md", "html": "html", "tex": "latex", "csv": "csv", "json": "json", "parquet": "parquet"}


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog="kd-analysis", description="What a distillation grid gave, from its records alone."
    )
    commands = parse.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, run, fallback, several, what in (
        ("table", run_table, "md", True, "gains, compression, what validation selects, models, costs and failures"),
        ("compare", run_compare, "md", False, "our results beside the published ones that the grid's file states"),
        ("records", run_records, "csv", True, "a row a teacher and cell, with all that is recorded of it"),
        ("curves", run_curves, "csv", True, "a row an epoch of every teacher and cell"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.set_defaults(run=run, fallback=fallback)
        _add_grid(command, several=several)
        _add_storages(command)
        _add_where(command)
        shown = f"default: as --output ends, or else {fallback}"
        command.add_argument("--format", choices=[*FORMATS.values()], help=shown)
        command.add_argument("--output", type=Path, metavar="FILE", help="write there instead of to the terminal")
        if name in ("table", "compare"):
            command.add_argument("--only", metavar="TABLE", help="one of the tables (a wrong name lists them)")
    for name, draw, metavar, default, what in (
        ("plots", run_plots, "DIR", "plots", "the pictures, as PNG and SVG for light and dark pages"),
        ("report", run_report, "FILE", "report.html", "one page: the conclusion, tables, pictures and every record"),
    ):
        command = commands.add_parser(name, help=what, description=f"Write {what}.")
        command.set_defaults(run=draw)
        _add_grid(command)
        _add_storages(command)
        _add_where(command)
        shown = f"default: {default} in the grid's folder"
        command.add_argument("--output", type=Path, metavar=metavar, help=shown)
    _add_wandb(commands)
    _add_export(commands)
    return parse


def _add_wandb(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "upload a grid to Weights & Biases: its runs, its tables and pictures, its report"
    command = commands.add_parser("wandb", help=what, description=what)
    command.set_defaults(run=run_wandb)
    _add_grid(command)
    command.add_argument(
        "--storage", default=STORAGE, metavar="PATH|URL", help=f"where results live (default: {STORAGE})"
    )
    command.add_argument("--mode", choices=("offline", "online"), help="default: online where wandb finds a key")
    command.add_argument("--report", action="store_true", help="a W&B Report too (online; needs wandb-workspaces)")


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "one trained student as a folder to publish: weights, ONNX, timm's config and a model card"
    command = commands.add_parser("export", help=what, description=f"Write {what}.")
    command.set_defaults(run=run_export)
    _add_grid(command)
    command.add_argument(
        "--storage", default=STORAGE, metavar="PATH|URL", help=f"where results live (default: {STORAGE})"
    )
    command.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder to write: new, or empty")
    command.add_argument("--student", metavar="LABEL", help="which student (default: the only one)")
    command.add_argument("--teacher", metavar="LABEL", help="distilled from which (default: validation selects)")
    command.add_argument("--mode", choices=("distilled", "baseline"), help="default: distilled, where there is one")
    command.add_argument("--seed", type=int, metavar="N", help="which seed (default: the grid's first, never the best)")
    command.add_argument("--temperature", type=float, metavar="T", help="default: validation selects")
    command.add_argument("--alpha", type=float, metavar="A", help="default: validation selects")


def _add_grid(command: argparse.ArgumentParser, *, several: bool = False) -> None:
    if not several:
        command.add_argument("grid", nargs="?", help="the grid's name (default: the one launched last)")
        return
    command.add_argument("grid", nargs="*", help="grids' names (default: the one launched last)")
    command.add_argument("--all", action="store_true", help="every grid that is there, in one table")


def _add_storages(command: argparse.ArgumentParser) -> None:
    what = f"where results live (default: {STORAGE}; may be repeated: they are read together)"
    command.add_argument("--storage", action="append", metavar="PATH|URL", help=what)


def _add_where(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="only these, such as student=ResNet-S (may be repeated; the values of one name add up)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        args.run(args)
    except AnalysisError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"error: --storage {', '.join(_storages(args))}: {error.strerror or error}", file=sys.stderr)
        return BAD_INPUT
    return DONE


def run_table(args: argparse.Namespace) -> None:
    from analysis.load import Grids
    from analysis.many import many_tables
    from analysis.tables import tables

    found = _grids(args)
    document = many_tables(found) if isinstance(found, Grids) else tables(found)
    _write_document(document, found.problems, args)


def run_compare(args: argparse.Namespace) -> None:
    from analysis.compare import comparison

    grid = _grid(args)
    _write_document(comparison(grid), grid.problems, args)


def run_records(args: argparse.Namespace) -> None:
    found = _grids(args)
    _write_frame(found.cells, found.problems, args)


def run_curves(args: argparse.Namespace) -> None:
    from analysis.curves import curves

    found = _grids(args)
    frame = curves(found)
    _write_frame(frame, found.problems, args)


def run_plots(args: argparse.Namespace) -> None:
    from analysis.plots import write

    grid = _grid(args)
    folder = args.output or _grid_folder(grid) / "plots"
    try:
        paths = write(grid, folder)
    except OSError as error:
        raise AnalysisError(f"--output {folder}: {error.strerror or error}") from None
    for path in paths:
        print(path)
    _warn(grid.problems)
    if not paths:
        print("nothing to draw yet", file=sys.stderr)


def run_report(args: argparse.Namespace) -> None:
    from analysis.report import report

    grid = _grid(args)
    file = args.output or _grid_folder(grid) / "report.html"
    page = report(grid)
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise AnalysisError(f"--output {file}: {error.strerror or error}") from None
    print(file)
    _warn(grid.problems)


def run_wandb(args: argparse.Namespace) -> None:
    from analysis.load import load_grid
    from analysis.wandb_export import Exporter, default_mode
    from analysis.wandb_summary import write_report, write_summary

    grid = load_grid(args.storage, args.grid)
    mode = args.mode or default_mode()
    if args.report and mode != "online":
        raise AnalysisError("--report is written at W&B itself: log in (wandb login), or leave it out")
    unwritten: list[str] = []
    with Exporter(args.storage, grid.name, mode=mode, warn=unwritten.append) as exporter:
        exporter.add_all()
    if exporter.failure is not None:
        raise AnalysisError(f"{exporter.failure}: what is written stays; run this again for the rest")
    write_summary(grid, mode=mode, folder=exporter.folder)
    print(f"{grid.name}: {mode}, in {exporter.folder / 'wandb'}")
    for line in unwritten:
        print(line, file=sys.stderr)
    # What has no run of its own, such as a data set's record.
    _warn([problem for problem in grid.problems if not any(problem in line for line in unwritten)])
    if args.report:
        print(write_report(grid))


def run_export(args: argparse.Namespace) -> None:
    """Publish one trained student as a folder; what had to be left out is told on stderr."""
    from analysis.load import load_grid
    from analysis.publish import choose

    asked = {name: getattr(args, name) for name in ("student", "teacher", "mode", "seed", "temperature", "alpha")}
    grid = load_grid(args.storage, args.grid)
    chosen = choose(grid, **asked)
    # The one thing here that builds models, and so the one that needs the code which trained them.
    from grid.export import ExportError, export_student

    try:
        published = export_student(args.storage, asdict(chosen), args.to)
    except ExportError as error:
        raise AnalysisError(str(error)) from None
    # The card's figures do not stand on what cannot be read.
    _warn([*grid.problems, *published.notes])
    print(f"{published.title}, seed {chosen.seed}: {args.to} has {', '.join(published.files)}")


def table(storage: str, grid: str | None = None) -> str:
    """The first table of a grid, with what belongs to it, as markdown: what a launch ends with."""
    from analysis.load import load_grid
    from analysis.render import markdown
    from analysis.tables import tables

    return markdown(tables(load_grid(storage, grid)).opening())


def _storages(args: argparse.Namespace) -> list[str]:
    return [args.storage] if isinstance(args.storage, str) else args.storage or [STORAGE]


def _grid(args: argparse.Namespace) -> Grid:
    # polars comes with it: --help does not wait.
    from analysis.load import load_grid
    from analysis.where import filtered

    return filtered(load_grid(_storages(args), args.grid), args.where)


def _grids(args: argparse.Namespace) -> Grid | Grids:
    """One grid where one is named, or none; several where several are, or all are asked for."""
    from analysis.load import load_grid, load_grids
    from analysis.where import filtered

    if args.all and args.grid:
        raise AnalysisError("give grids' names or --all, not both")
    if args.all or len(args.grid) > 1:
        return filtered(load_grids(_storages(args), args.grid or None), args.where)
    return filtered(load_grid(_storages(args), *args.grid), args.where)


def _grid_folder(grid: Grid) -> Path:
    """Where what belongs to a whole grid is written; raises AnalysisError for a part, and for a storage by URL."""
    if grid.only:
        raise AnalysisError("--where shows a part of the grid: give --output, so that it does not replace the whole")
    if "://" in grid.storage:
        raise AnalysisError("give --output: what is drawn from a storage by URL is written to this machine")
    return Path(grid.storage).expanduser() / "grids" / grid.name


def _format(args: argparse.Namespace) -> str:
    ending = args.output.suffix.removeprefix(".") if args.output else ""
    return str(args.format or FORMATS.get(ending, args.fallback))


def _warn(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)


def _write_document(document: Document, problems: Sequence[str], args: argparse.Namespace) -> None:
    from analysis import render

    how = _format(args)
    if args.only is not None and args.only not in document.tables:
        raise AnalysisError(f"--only {args.only}: no such table here; there are {', '.join(document.tables)}")
    if how not in render.DOCUMENTS or args.only is not None:
        _warn(problems)  # a table alone has no notes that name them
    if how in render.DOCUMENTS:
        _write(render.DOCUMENTS[how](document if args.only is None else document.only(args.only)).encode(), args)
        return
    # Data has no place for several tables: the first is the main one.
    name = args.only or next(iter(document.tables))
    _write(render.data(document.tables[name].frame, how), args)


def _write_frame(frame: pl.DataFrame, problems: Sequence[str], args: argparse.Namespace) -> None:
    from analysis import render

    _warn(problems)
    how = _format(args)
    if how in render.DOCUMENTS:
        _write(render.DOCUMENTS[how](render.as_document(frame, args.command)).encode(), args)
    else:
        _write(render.data(frame, how), args)


def _write(content: bytes, args: argparse.Namespace) -> None:
    if args.output is None:
        if isinstance(sys.stdout, io.TextIOWrapper) and _format(args) != "parquet":
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
