"""The command line of `python -m analysis`, and what its options mean together."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from analysis.errors import AnalysisError
from grid.contract.files.layout import STORAGE
from grid.contract.plan import NUMBERS
from grid.contract.program.installed import ShowVersion, analysis_command

# By the ending of --output.
FORMATS = {"md": "md", "html": "html", "tex": "latex", "csv": "csv", "json": "json", "parquet": "parquet"}


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog=analysis_command(), description="What a distillation grid gave, from its records alone."
    )
    parse.add_argument("--version", action=ShowVersion)
    commands = parse.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, fallback, several, what in (
        ("table", "md", True, "gains, compression, what validation selects, models, costs and failures"),
        ("compare", "md", False, "our results beside the published ones that the grid's file states"),
        ("classes", "md", False, "balanced accuracy, the classes that are never right, the images won and lost"),
        ("records", "csv", True, "a row a teacher and cell, with all that is recorded of it"),
        ("curves", "csv", True, "a row an epoch of every teacher and cell"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.set_defaults(fallback=fallback)
        _add_grid(command, several=several)
        _add_storages(command)
        _add_where(command)
        _add_format(command, fallback, tables=name in ("table", "compare", "classes"))
    for name, metavar, default, what in (
        ("plots", "DIR", "plots", "the pictures, as PNG and SVG for light and dark pages"),
        ("report", "FILE", "report.html", "one page: the conclusion, tables, pictures and every record"),
    ):
        command = commands.add_parser(name, help=what, description=f"Write {what}.")
        _add_grid(command)
        _add_storages(command)
        _add_where(command)
        shown = f"default: {default} in the grid's folder"
        command.add_argument("--output", type=Path, metavar=metavar, help=shown)
    _add_wandb(commands)
    _add_export(commands)
    _add_bundle(commands)
    _add_diff(commands)
    return parse


def _add_wandb(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "upload a grid to Weights & Biases: its runs, its tables and pictures, its report"
    command = commands.add_parser("wandb", help=what, description=what)
    _add_grid(command)
    _add_storages(command)
    command.add_argument("--mode", choices=("offline", "online"), help="default: online where wandb finds a key")
    command.add_argument("--report", action="store_true", help="a W&B Report too (online; needs wandb-workspaces)")


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "one trained student as a folder to publish: weights, ONNX, timm's config and a model card"
    command = commands.add_parser("export", help=what, description=f"Write {what}.")
    _add_grid(command)
    _add_storages(command, several=False)
    command.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder to write: new, or empty")
    command.add_argument("--student", metavar="LABEL", help="which student (default: the only one)")
    command.add_argument("--teacher", metavar="LABEL", help="distilled from which (default: validation selects)")
    command.add_argument("--mode", choices=("distilled", "baseline"), help="default: distilled, where there is one")
    command.add_argument("--seed", type=int, metavar="N", help="which seed (default: the grid's first, never the best)")
    command.add_argument("--method", metavar="NAME", help="default: validation selects")
    for axis in NUMBERS:
        command.add_argument(f"--{axis}", type=float, metavar=axis[0].upper(), help="default: validation selects")
    command.add_argument("--setting", metavar="TEXT", help="other parameters, as tables have them: 'beta 2'")
    trust = "run the code that makes a student of a factory: it comes from the storage, and so from who writes there"
    command.add_argument("--trust-code", action="store_true", help=trust)


def _add_bundle(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "one small file with all that the other commands read of a grid, to be given as --storage FILE.zip"
    command = commands.add_parser("bundle", help=what, description=f"Write {what}.")
    command.add_argument("grid", metavar="GRID", help="the grid's name")
    command.add_argument("file", type=Path, metavar="FILE.zip", help="the file to write")
    _add_storages(command)
    command.add_argument("--replace", action="store_true", help="write over FILE.zip where it is there already")


def _add_diff(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "two grids, or one before and now: accuracies paired by seed, gains, and what else differs"
    command = commands.add_parser("diff", help=what, description=what)
    command.set_defaults(fallback="md")
    each = "what was before, and what is now: each GRID, GRID@STORAGE where it lies elsewhere, or a bundle's FILE.zip"
    command.add_argument("grid", nargs=2, metavar=("A", "B"), help=each)
    _add_storages(command)
    fail = "end with status 1 where any mean accuracy fell by more than X points"
    command.add_argument("--fail-below", type=_points, metavar="X", help=fail)
    _add_format(command, "md", tables=True)


def _points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: give the points that a mean may fall by, 0 or more")
    return points


def _add_format(command: argparse.ArgumentParser, fallback: str, *, tables: bool) -> None:
    shown = f"default: as --output ends, or else {fallback}"
    command.add_argument("--format", choices=[*FORMATS.values()], help=shown)
    command.add_argument("--output", type=Path, metavar="FILE", help="write there instead of to the terminal")
    if tables:
        command.add_argument("--only", metavar="TABLE", help="one of the tables (a wrong name lists them)")


def _add_grid(command: argparse.ArgumentParser, *, several: bool = False) -> None:
    if not several:
        command.add_argument("grid", nargs="?", help="the grid's name (default: the one launched last)")
        return
    command.add_argument("grid", nargs="*", help="grids' names (default: the one launched last)")
    command.add_argument("--all", action="store_true", help="every grid that is there, in one table")


def _add_storages(command: argparse.ArgumentParser, *, several: bool = True) -> None:
    repeated = "; may be repeated: they are read together" if several else ""
    what = f"where results live (default: {STORAGE}{repeated})"
    command.add_argument("--storage", action="append", metavar="PATH|URL|FILE.zip", help=what)


def _add_where(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="only these, such as student=ResNet-S (may be repeated; the values of one name add up)",
    )


def storages(args: argparse.Namespace) -> list[str]:
    return args.storage or [STORAGE]


def output_format(args: argparse.Namespace) -> str:
    """What is asked for, or what --output's ending says. Raises AnalysisError for an ending that says nothing."""
    ending = args.output.suffix.lower().removeprefix(".") if args.output else ""
    if not args.format and ending and ending not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise AnalysisError(
            f"--output {args.output}: no format is known by .{ending}: end it in {known}, or give --format"
        )
    return str(args.format or FORMATS.get(ending, args.fallback))
