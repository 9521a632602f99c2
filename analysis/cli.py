"""`python -m analysis` and `kd-analysis`: what a grid gave, from its storage alone. No command runs anything that comes
from there but `export --trust-code`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, NoReturn

from analysis.arguments import output_format, parser, storages
from analysis.errors import AnalysisError
from analysis.write.output import warn, write_asked, write_below, write_document, write_frame
from grid.contract.credentials import redact_tracebacks
from grid.contract.files.layout import grid_folder
from grid.contract.plan import AXES
from grid.contract.terminal import StdoutError, tell
from grid.contract.text import encoding_of

if TYPE_CHECKING:
    from analysis.read.grids import Grid, Grids

DONE, FALLEN, BAD_INPUT = 0, 1, 2


def command() -> NoReturn:
    """The command line's own process."""
    redact_tracebacks()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """A command from Python: `main(["table", "digits"])`. Returns the exit status, also for wrong arguments."""
    try:
        args = parser().parse_args(argv)
        if "format" in args:
            args.format = output_format(args)
        return RUN[args.command](args) or DONE
    except (AnalysisError, StdoutError) as error:
        tell(f"error: {error}", sys.stderr)
        return BAD_INPUT
    except SystemExit as ended:  # by argparse, which has said why
        return ended.code if isinstance(ended.code, int) else BAD_INPUT


def run_table(args: argparse.Namespace) -> None:
    from analysis.read.grids import Grids
    from analysis.tables.grid_tables import tables
    from analysis.tables.grids_tables import many_tables

    found = _grids(args)
    document = many_tables(found) if isinstance(found, Grids) else tables(found)
    write_document(document, found.problems, args)


def run_compare(args: argparse.Namespace) -> None:
    from analysis.tables.compare import comparison

    grid = _grid(args)
    write_document(comparison(grid), grid.problems, args)


def run_classes(args: argparse.Namespace) -> None:
    from analysis.tables.classes import classes_document

    grid = _grid(args)
    write_document(classes_document(grid), grid.problems, args)


def run_records(args: argparse.Namespace) -> None:
    found = _grids(args)
    write_frame(found.cells, found.problems, args)


def run_curves(args: argparse.Namespace) -> None:
    from analysis.read.curves import curves

    found = _grids(args)
    frame = curves(found)
    write_frame(frame, found.problems, args)


def run_plots(args: argparse.Namespace) -> None:
    from analysis.plots import write

    grid = _grid(args)
    root, below = (str(args.output), "") if args.output else _grid_place(grid)
    paths = write(grid, root, f"{below}/plots" if below else "")
    for path in paths:
        tell(str(path))
    warn(grid.problems)
    if not paths:
        tell("nothing to draw yet", sys.stderr)


def run_report(args: argparse.Namespace) -> None:
    from analysis.report import report

    grid = _grid(args)
    root, below = ("", "") if args.output else _grid_place(grid)
    page = report(grid).encode()
    if args.output:
        write_asked(args.output, page)
    else:
        write_below(root, f"{below}/report.html", page)
    tell(str(args.output or f"{root}/{below}/report.html"))
    warn(grid.problems)


def run_wandb(args: argparse.Namespace) -> None:
    from analysis.read.load import load_grid
    from analysis.tracking.export import Exporter, default_mode
    from analysis.tracking.summary import write_report, write_summary

    grid = load_grid(storages(args), args.grid)
    mode = args.mode or default_mode()
    if args.report and mode != "online":
        raise AnalysisError("--report is written at W&B itself: log in (wandb login), or leave it out")
    unwritten: list[str] = []
    others = grid.reader.storages
    with Exporter(grid.storage, grid.name, others=others, mode=mode, warn=unwritten.append) as exporter:
        exporter.add_all()
    if exporter.failure is not None:
        raise AnalysisError(f"{exporter.failure}: what is written stays; run this again for the rest")
    write_summary(grid, mode=mode, folder=exporter.folder)
    tell(f"{grid.name}: {mode}, in {exporter.folder / 'wandb'}")
    for line in unwritten:
        tell(line, sys.stderr)
    # What has no run of its own, such as a data set's record.
    warn([problem for problem in grid.problems if not any(problem in line for line in unwritten)])
    if args.report:
        tell(write_report(grid))


def run_export(args: argparse.Namespace) -> None:
    """Publish one trained student as a folder; what had to be left out is told on stderr."""
    from analysis.publish import choose
    from analysis.read.load import load_grid
    from analysis.read.storage import is_bundle

    storage, *more = storages(args)
    if more:
        raise AnalysisError("--storage is given several times: export takes the one that has the student's weights")
    if is_bundle(storage):
        raise AnalysisError(f"--storage {storage}: a bundle has no weights: give the storage that it was made of")
    asked = {name: getattr(args, name) for name in ("student", "teacher", "mode", "seed", *AXES)}
    grid = load_grid(storage, args.grid)
    chosen = choose(grid, **asked)
    # The one thing here that builds models, and so the one that needs the code which trained them, and may run it.
    from grid.publish.export import ExportError, export_student

    try:
        published = export_student(storage, asdict(chosen), args.to, trust_code=args.trust_code)
    except ExportError as error:
        raise AnalysisError(str(error)) from None
    # The card's figures do not stand on what cannot be read.
    warn([*grid.problems, *published.notes])
    tell(f"{published.title}, seed {chosen.seed}: {args.to} has {', '.join(published.files)}")


def run_bundle(args: argparse.Namespace) -> None:
    from analysis.read.load import load_grid
    from analysis.write.bundle import left_out, write_bundle
    from grid.contract.units import sized

    grid = load_grid(storages(args), args.grid)
    written = write_bundle(grid, args.file, replace=args.replace)
    stages, files = (
        f"{n} {what}{'' if n == 1 else 's'}" for n, what in ((written.stages, "stage"), (written.files, "file"))
    )
    tell(f"{args.file}: grid {grid.name}, {stages}, {files}, {sized(written.size)}, sha256 {written.sha256}")
    warn([*left_out(grid), *dict.fromkeys([*grid.problems, *written.problems])])


def run_diff(args: argparse.Namespace) -> int:
    from analysis.tables.diff import difference, points

    before, now = (_side(text, args) for text in args.grid)
    found = difference(before, now, args.fail_below)
    write_document(found.document, [*dict.fromkeys([*before.problems, *now.problems])], args)
    if args.fail_below is not None and found.unjudged:
        warn([f"--fail-below: not judged, done before and without a result now: {found.unjudged} teachers and cells"])
    for line in found.fallen:
        tell(f"fallen by more than {points(args.fail_below)}: {line}", sys.stderr)
    return FALLEN if found.fallen else DONE


RUN: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "table": run_table,
    "compare": run_compare,
    "classes": run_classes,
    "records": run_records,
    "curves": run_curves,
    "plots": run_plots,
    "report": run_report,
    "wandb": run_wandb,
    "export": run_export,
    "bundle": run_bundle,
    "diff": run_diff,
}


def table(storage: str, grid: str | None = None) -> str:
    """The first table of a grid, with what belongs to it, as markdown that stdout can hold: what a launch ends with."""
    from analysis.read.load import load_grid
    from analysis.tables.grid_tables import tables
    from analysis.write.markdown import markdown

    return markdown(tables(load_grid(storage, grid)).opening(), encoding=encoding_of(sys.stdout))


def _grid(args: argparse.Namespace) -> Grid:
    # polars comes with it: --help does not wait.
    from analysis.read.load import load_grid
    from analysis.read.where import filtered

    return filtered(load_grid(storages(args), args.grid), args.where)


def _side(text: str, args: argparse.Namespace) -> Grid:
    """One of the two that `diff` takes: GRID, GRID@STORAGE, or a bundle."""
    from analysis.read.bundle import ENDING
    from analysis.read.load import load_grid

    name, at, storage = text.partition("@")
    if text.endswith(ENDING) and (not at or "/" in name):  # which no grid has in its name
        return load_grid(text)
    return load_grid(storage if at else storages(args), name or None)


def _grids(args: argparse.Namespace) -> Grid | Grids:
    """One grid where one is named, or none; several where several are, or all are asked for."""
    from analysis.read.load import load_grid, load_grids
    from analysis.read.where import filtered

    if args.all and args.grid:
        raise AnalysisError("give grids' names or --all, not both")
    if args.all or len(args.grid) > 1:
        return filtered(load_grids(storages(args), args.grid or None), args.where)
    return filtered(load_grid(storages(args), *args.grid), args.where)


def _grid_place(grid: Grid) -> tuple[str, str]:
    """Where what belongs to a whole grid is written: the storage's root and the grid's folder below it. Raises
    AnalysisError for a part, for a storage by URL and for a bundle."""
    from analysis.read.storage import local_root

    if grid.only:
        raise AnalysisError("--where shows a part of the grid: give --output, so that it does not replace the whole")
    root = local_root(grid.storage)
    if root is None:
        raise AnalysisError("give --output: nothing is written into a bundle, or to a storage by URL")
    return root, grid_folder(grid.name)
