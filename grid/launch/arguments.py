"""The arguments of a launch. Needs nothing heavy: --help does not wait."""

from __future__ import annotations

import argparse

from grid.contract.files.layout import STORAGE
from grid.contract.program.installed import ShowVersion, grid_command

# Of the grid's resources, which may be given as options.
RESOURCES = {
    "concurrency": ("N", "at most this many cells at a time"),
    "cpus-per-cell": ("N", "CPUs of a cell, and its threads"),
    "gpus-per-cell": ("X|auto", "the part of a GPU of a cell, or auto: as its memory allows"),
    "teacher-workers": ("N|MIN-MAX", "data-parallel workers of a teacher"),
    "gpus-per-teacher-worker": ("X", "GPUs of each of them"),
}

LAST = ""  # --status alone
LOCAL_DASHBOARD = "localhost:8265"


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog=grid_command(),
        description="Run a knowledge-distillation grid: teachers x students x (baseline | distilled) x seeds. "
        "Run it again to finish what was interrupted or failed; what is done is not computed twice.",
        epilog="Exit status: 0 all done, 1 some stages failed or Ray was lost, 2 bad input, 130 interrupted. Of "
        "--status: 0 done, or running without a failure; 1 some stages failed, or nothing runs though it is "
        "unfinished; 2 bad input.",
    )
    parse.add_argument("--grid", metavar="NAME|FILE", help="a named grid (see --list) or a grid file")
    parse.add_argument("--list", action="store_true", help="show the named grids")
    parse.add_argument(
        "--status",
        nargs="?",
        const=LAST,
        metavar="NAME|FILE",
        help="show how a grid stands, from its storage alone, and stop (no name: the grid launched last)",
    )
    parse.add_argument(
        "--watch", action="store_true", help="with --status: show it anew every few seconds until the end"
    )
    parse.add_argument("--dry-run", action="store_true", help="print the plan and what would run, and stop")
    parse.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a value of the grid, such as recipe.epochs=2 or 'seeds=[0,1]' (may be repeated)",
    )
    parse.add_argument(
        "--data",
        metavar="DIR",
        help="folder with the images of a data set known by name: the standard folders, archives, or parquet files "
        "(default: download them)",
    )
    parse.add_argument(
        "--storage", default=STORAGE, metavar="PATH|URL", help=f"where results live (default: {STORAGE})"
    )
    parse.add_argument(
        "--address", metavar="ADDRESS", help="a running Ray: auto or ray://HOST:PORT (default: start one here)"
    )
    parse.add_argument("--cpus", type=int, metavar="N", help="CPUs of the Ray started here (default: all)")
    for name, (metavar, meaning) in RESOURCES.items():
        parse.add_argument(f"--{name}", metavar=metavar, help=f"{meaning} (the grid's resources)")
    parse.add_argument(
        "--dashboard",
        nargs="?",
        const=LOCAL_DASHBOARD,
        metavar="HOST:PORT",
        help=f"start Ray's dashboard too, at {LOCAL_DASHBOARD} unless told otherwise; it asks for a token: the one in "
        "RAY_AUTH_TOKEN, or else one that is shown on the terminal",
    )
    parse.add_argument(
        "--wandb",
        choices=("offline", "online", "disabled"),
        help="log to Weights & Biases (default: online where wandb finds a key, offline otherwise)",
    )
    parse.add_argument("--version", action=ShowVersion)
    # What to call this command, and the analysis, in messages.
    parse.add_argument("--again", help=argparse.SUPPRESS)
    parse.add_argument("--analysis", help=argparse.SUPPRESS)
    return parse


def overrides_of(args: argparse.Namespace) -> list[str]:
    """Those of --set, and of the options that say how much a worker holds."""
    given = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name in RESOURCES}
    workers = given["teacher_workers"]
    if workers is not None and "-" in workers:
        given["teacher_workers"] = f"[{workers.replace('-', ', ')}]"
    chosen = {name: value for name, value in given.items() if value is not None}
    return [*args.overrides, *(f"resources.{name}={value}" for name, value in chosen.items())]
