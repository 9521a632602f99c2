"""Run a distillation grid: `python launch.py --grid digits`."""

from __future__ import annotations

import sys

# Before all other imports: an older Python fails in one of them, and would say nothing of what is wrong.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.stderr.write(f"error: kd-grid needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}\n")
    sys.exit(2)

import argparse
import os
import shlex
import signal
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from analysis.errors import AnalysisError
from grid.contract.credentials import address_problem, redact_tracebacks
from grid.contract.files.local_files import OddFileError
from grid.contract.program.installed import analysis_command, grid_command, storage_option
from grid.contract.terminal import StdoutError, tell
from grid.errors import UserError
from grid.launch.arguments import LAST, overrides_of, parser

if TYPE_CHECKING:
    from grid.launch.launch import Outcome
    from grid.plan import Plan
    from grid.store.store import Store

DONE, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def command() -> NoReturn:
    """The command line's own process: it ends with the launch."""
    redact_tracebacks()
    sys.exit(_launch(sys.argv[1:], end=os._exit))


def main(argv: Sequence[str]) -> int:
    """The same from Python, in a notebook for one: `launch.main(["--grid", "digits"])`. Returns the exit status, also
    for wrong arguments, and leaves the process as it was found: signals, logging, hooks, output, environment.

    In the main thread an interrupt stops the launch as Ctrl-C does, with 130; another thread receives none. What has
    been imported stays so, and Ray has read the settings of a launch by then. The Ray of a launch that was interrupted
    twice, or of one that is lost, may have to be left behind; the next launch refuses to start then, and only another
    process can.
    """
    from grid.launch.guest import left_as_found

    with left_as_found():
        return _launch(argv, end=None)


def _launch(argv: Sequence[str], *, end: Callable[[int], NoReturn] | None) -> int:
    """end: ends the process, where it may be ended; None where it goes on."""
    parse = parser()
    try:
        args = parse.parse_args(argv)
        args.argv, args.end = list(argv), end
        if args.list:
            return list_grids()
        if args.watch and args.status is None:
            raise UserError("--watch is for --status")
        if args.status is not None:
            return show_status(args)
        if args.grid is None:
            parse.error("one of --grid, --list and --status is needed")
        if args.cpus is not None and args.cpus < 1:
            raise UserError(f"--cpus must be >= 1, got {args.cpus}")
        if args.cpus is not None and args.address is not None:
            raise UserError("--cpus is for a Ray started here: leave it out with --address")
        if args.dashboard is not None and args.address is not None:
            raise UserError("--dashboard is for a Ray started here: the one at --address has its own")
        problem = address_problem(args.address) if args.address is not None else None
        if problem is not None:
            raise UserError(problem)
        return run(args)
    except (UserError, OddFileError, AnalysisError, StdoutError) as error:
        tell(f"error: {error.strerror if isinstance(error, OddFileError) else error}", sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        tell("interrupted", sys.stderr)
        return INTERRUPTED
    except SystemExit as ended:  # by argparse, which has said why
        return ended.code if isinstance(ended.code, int) else BAD_INPUT


def list_grids() -> int:
    from grid.read.grid_file import load_grid, named_grids

    for name in named_grids():
        tell(f"{name:<16} {load_grid(name).description}")
    return DONE


def show_status(args: argparse.Namespace) -> int:
    from grid.watch.show_status import show_status

    if args.grid is not None and args.status != LAST:
        raise UserError("give the grid to --status alone: leave --grid out")
    asked = args.grid if args.status == LAST else args.status
    return DONE if show_status(args.storage, asked, watch=args.watch) else SOME_FAILED


def run(args: argparse.Namespace) -> int:
    """Check, plan, run and conclude. Raises UserError before anything has started."""
    from grid.interruption import to_mind
    from grid.plan import make_plan
    from grid.private import use_private_compiler_caches
    from grid.read.grid_file import load_grid
    from grid.store.probe import check_fit
    from grid.store.store import Store

    plan = make_plan(load_grid(args.grid, overrides_of(args), data=args.data))
    store = Store(args.storage)
    check_fit(store)
    use_private_compiler_caches()  # before timm, with which torch makes folders for them
    if args.dry_run:
        from grid.watch.dry_run import dry_run

        dry_run(plan, store)
        return DONE

    if threading.current_thread() is threading.main_thread():
        for number in to_mind():
            signal.signal(number, _interrupt)
    if args.address is not None and args.address.startswith("ray://"):
        from grid.launch.remotely import run_on_cluster

        options = ["--storage", store.url, "--again", again(args), "--analysis", analysis_command()]
        options += ["--wandb", args.wandb] if args.wandb else []
        return run_on_cluster(plan, args.address, options, goes_on=args.end is None)
    return run_here(args, plan, store)


def run_here(args: argparse.Namespace, plan: Plan, store: Store) -> int:
    """Run the plan from here, show its results, and say what became of it."""
    from analysis.cli import table
    from analysis.tracking.export import Exporter
    from grid.cluster.session import Dashboard
    from grid.launch.conclusion import conclude
    from grid.launch.launch import Options
    from grid.launch.logged import run_logged

    page = f"{args.analysis or analysis_command()} report {plan.spec.name}{storage_option(args.storage)}"

    def concluded(outcome: Outcome, shown: str = "") -> int:
        conclude(outcome, again=again(args), page=page, table=shown)
        if outcome.interrupted and outcome.lost_ray is None:
            return INTERRUPTED
        return SOME_FAILED if outcome.interrupted or outcome.errors else DONE

    dashboard = Dashboard.at(args.dashboard) if args.dashboard is not None else None
    outcome = run_logged(
        plan,
        store,
        Options(address=args.address, cpus=args.cpus, dashboard=dashboard),
        export=lambda say: Exporter(store.url, plan.spec.name, mode=args.wandb, warn=say),
        leave=(lambda outcome: args.end(concluded(outcome))) if args.end is not None else None,
    )
    if outcome.interrupted:
        return concluded(outcome)
    try:
        shown = table(store.url, plan.spec.name)
    except AnalysisError as error:  # as where the storage went away in the middle
        concluded(outcome, f"There is no table: {error}")
        return SOME_FAILED
    return concluded(outcome, shown)


def again(args: argparse.Namespace) -> str:
    """The command that goes on with this launch."""
    return args.again or " ".join([grid_command(), shlex.join(args.argv)])


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    command()
