"""Run a distillation grid: `python launch.py --grid digits`."""

from __future__ import annotations

import sys

# Before all other imports: an older Python fails in one of them, and would say nothing of what is wrong.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.stderr.write(f"error: kd-grid needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}\n")
    sys.exit(2)

import argparse
import contextlib
import os
import shlex
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from analysis.errors import AnalysisError
from analysis.write.output import Lasting, tell
from grid.contract.credentials import address_problem, redact_tracebacks
from grid.contract.layout import STORAGE, grid_folder
from grid.contract.local_files import OddFileError
from grid.contract.program.installed import ShowVersion, analysis_command, grid_command
from grid.contract.text import on_one_line
from grid.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from grid.launch.launch import Outcome
    from grid.plan import Plan
    from grid.store.store import Store
    from grid.watch.signs import Planned

DONE, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

# Of the grid's resources, which may be given as options.
RESOURCES = {
    "concurrency": ("N", "at most this many cells at a time"),
    "cpus-per-cell": ("N", "CPUs of a cell, and its threads"),
    "gpus-per-cell": ("X|auto", "the part of a GPU of a cell, or auto: as its memory allows"),
    "teacher-workers": ("N|MIN-MAX", "data-parallel workers of a teacher"),
    "gpus-per-teacher-worker": ("X", "GPUs of each of them"),
}

LOG = "launch.log"
LAST = ""  # --status alone
LOCAL_DASHBOARD = "localhost:8265"
WATCH_SECONDS = 3.0
WATCHED_LINES = 8  # of each state


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
    except (UserError, OddFileError, AnalysisError) as error:
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
    """How a grid stands on its storage; with --watch until nothing is left to run, or Ctrl-C. The plan is made again
    from what lies there, which builds no model and so runs no code of a factory."""
    from datetime import UTC, datetime

    from grid.store.store import Store
    from grid.watch.signs import GridReader
    from grid.watch.status import GridStatus, grid_status, lines

    if args.grid is not None and args.status != LAST:
        raise UserError("give the grid to --status alone: leave --grid out")
    asked = args.grid if args.status == LAST else args.status
    reader = GridReader(Store(args.storage), asked)
    results = f"{analysis_command()} table {shlex.quote(reader.name)}{storage_of(args)}"
    again = to_go_on(args, reader.read().planned, asked)

    def look(limit: int | None = None) -> tuple[GridStatus, str]:
        now = datetime.now(UTC)
        status = grid_status(reader.read(now), now)
        return status, "\n".join(lines(status, again=again, results=results, limit=limit))

    if args.watch:
        from rich.live import Live
        from rich.text import Text

        try:
            with Live(console=console_on(sys.stdout), auto_refresh=False) as live:
                while True:
                    status, text = look(WATCHED_LINES)
                    live.update(Text(text), refresh=True)
                    if status.is_over:
                        break
                    time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            return DONE
    else:
        status, text = look()
        tell(text)
    return DONE if status.is_well else SOME_FAILED


def to_go_on(args: argparse.Namespace, planned: Planned, asked: str | None) -> str:
    """The command that goes on with a grid. Its storage knows neither the grid's file nor what --set has changed."""
    from grid.read.grid_file import load_grid, named_grids

    name, hint = planned.name, ""
    grid = asked if asked is not None and asked != name else name
    if grid == name and name not in named_grids():
        grid, hint = "FILE", f" (with the file of grid {name})"
    else:
        with contextlib.suppress(UserError):  # its images may be on another machine
            if planned.plan is None or planned.plan.spec != load_grid(grid):
                hint = " (with the --set and --data that it was launched with)"
    return f"{grid_command()} --grid {shlex.quote(grid)}{storage_of(args)}{hint}"


def overrides_of(args: argparse.Namespace) -> list[str]:
    """Those of --set, and of the options that say how much a worker holds."""
    given = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name in RESOURCES}
    workers = given["teacher_workers"]
    if workers is not None and "-" in workers:
        given["teacher_workers"] = f"[{workers.replace('-', ', ')}]"
    chosen = {name: value for name, value in given.items() if value is not None}
    return [*args.overrides, *(f"resources.{name}={value}" for name, value in chosen.items())]


def storage_of(args: argparse.Namespace) -> str:
    """What commands in messages say of the storage."""
    return "" if args.storage == STORAGE else f" --storage {shlex.quote(args.storage)}"


def run(args: argparse.Namespace) -> int:
    """Check, plan, run and conclude. Raises UserError before anything has started."""
    from analysis.cli import table
    from analysis.tracking.export import Exporter
    from grid.cluster import token
    from grid.cluster.session import Dashboard, output_to
    from grid.interruption import to_mind
    from grid.launch.guest import logged_to_stderr
    from grid.launch.launch import Options
    from grid.launch.run import run_grid
    from grid.plan import make_plan
    from grid.private import use_private_compiler_caches
    from grid.read.datasets import described
    from grid.read.grid_file import load_grid
    from grid.store.store import Store

    plan = make_plan(load_grid(args.grid, overrides_of(args), data=args.data))
    store = Store(args.storage)
    store.check_fit()
    use_private_compiler_caches()  # before timm, with which torch makes folders for them
    if args.dry_run:
        return dry_run(plan, store)

    if threading.current_thread() is threading.main_thread():
        for number in to_mind():
            signal.signal(number, _interrupt)
    if args.address is not None and args.address.startswith("ray://"):
        return run_on_cluster(args, plan, store)
    dashboard = Dashboard.at(args.dashboard) if args.dashboard is not None else None
    has_token = token.is_given()
    if dashboard is not None:
        dashboard.check()
    store.check_writable()
    folder = grid_folder(plan.spec.name)
    root, log = (store.url, f"{folder}/{LOG}") if store.is_local else (tempfile.mkdtemp(prefix="kd-grid-"), LOG)
    with contextlib.ExitStack() as stack:
        terminal = stack.enter_context(output_to(root, log))
        stack.enter_context(logged_to_stderr())
        console = console_on(terminal)

        def say(text: str) -> None:
            console.print(text, markup=False, highlight=False)

        say(f"Grid {plan.spec.name}: {len(plan.stages)} stages, results in {store.url}, log in {root}/{log}")
        for line in described(plan.spec.dataset):
            say(line)
        if dashboard is not None:
            say(f"Ray's dashboard, once Ray has started: {dashboard.url}")
            say(token.login(was_given=has_token, on_terminal=console.is_terminal))
        exporter = stack.enter_context(Exporter(store.url, plan.spec.name, mode=args.wandb, warn=say))

        def leave(outcome: Outcome) -> None:
            stack.close()
            args.end(conclude(outcome, args))

        options = Options(address=args.address, cpus=args.cpus, dashboard=dashboard)
        outcome = run_grid(
            plan,
            store,
            options,
            console,
            on_done=lambda stage: exporter.add(stage.id),
            on_lost_ray=leave if args.end is not None else None,
        )
        if outcome.interrupted and args.end is not None:
            # At once: Ray's own exit handler could meet a teacher's thread that is still inside Ray, and end in
            # status 1.
            leave(outcome)
        if not outcome.interrupted:
            exporter.add_all()
    if outcome.interrupted:
        return conclude(outcome, args)
    try:
        shown = table(store.url, plan.spec.name)
    except AnalysisError as error:  # as where the storage went away in the middle
        conclude(outcome, args, table=f"There is no table: {error}")
        return SOME_FAILED
    return conclude(outcome, args, table=shown)


def dry_run(plan: Plan, store: Store) -> int:
    """Of images that nothing says the place of, those of the grid's last launch are meant: ids depend on the images."""
    from grid.plan import make_plan
    from grid.store.standing import look
    from grid.watch.preview import inspect_models, print_plan
    from grid.watch.signs import images_of_last_launch

    store.check_readable()
    images = ""
    if plan.spec.dataset.is_downloaded:
        then = images_of_last_launch(plan.spec, store)
        if then is None:
            images = "Its images would be downloaded. Give --data here, too, if it will be launched with it: ids differ"
        elif then.place is not None:
            plan = make_plan(plan.spec.model_copy(update={"dataset": then}))
            images = f"Its images are those of its last launch on this storage, in {on_one_line(then.place)}"
    stands = look(plan, store)
    for line in stands.lines:
        tell(f"warning: {line}", sys.stderr)
    console = console_on(sys.stdout)
    print_plan(plan, set(stands.done), inspect_models(plan), console, images=images)
    cast("Lasting", console.file).check()
    return DONE


def run_on_cluster(args: argparse.Namespace, plan: Plan, store: Store) -> int:
    """Have the launch done by a process on the cluster. The models are checked here, before Ray is joined."""
    from grid.cluster.guest import check_free, leave_ray
    from grid.cluster.remote import launch_remotely
    from grid.watch.preview import inspect_models

    inspect_models(plan)
    check_free()
    options = ["--storage", store.url, "--again", again(args), "--analysis", analysis_command()]
    options += ["--wandb", args.wandb] if args.wandb else []
    try:
        return launch_remotely(args.address, plan.spec.model_dump_json(), options)
    finally:
        if args.end is None:
            leave_ray()


def again(args: argparse.Namespace) -> str:
    """The command that goes on with this launch."""
    return args.again or " ".join([grid_command(), shlex.join(args.argv)])


def conclude(outcome: Outcome, args: argparse.Namespace, *, table: str = "") -> int:
    """Say what became of the launch; returns the exit status. table: its results, unless it was interrupted."""
    total, titles = len(outcome.plan.stages), outcome.plan.titles()
    if outcome.interrupted:
        done = outcome.reused + outcome.done
        why = "Interrupted" if outcome.lost_ray is None else f"error: {outcome.lost_ray}. The launch ends"
        tell(f"\n{why} with {done} of {total} stages done. To go on: {again(args)}", sys.stderr)
        for stage_id, how_far in outcome.left.items():
            tell(f"  {titles[stage_id]}: {f'saved at {how_far}' if how_far else 'starts again'}", sys.stderr)
        return INTERRUPTED if outcome.lost_ray is None else SOME_FAILED
    if outcome.reused == total:
        tell("Everything was done already; nothing was computed.")
    elif not outcome.errors:
        tell(f"Done: {outcome.done} stages computed, {outcome.reused} reused.")
    if outcome.lost_workers:
        count = "1 worker was" if outcome.lost_workers == 1 else f"{outcome.lost_workers} workers were"
        tell(f"{count} lost on the way; the stages went on from their checkpoints.")
    tell(f"\n{table}")
    page = f"{args.analysis or analysis_command()} report {outcome.plan.spec.name}{storage_of(args)}"
    tell(f"Models, costs, pictures and every record on one page: {page}")
    if not outcome.errors:
        return DONE
    failed, blocked = outcome.failed, outcome.blocked
    tell(f"{len(failed)} stages failed, {len(blocked)} were not run because of them:", sys.stderr)
    for stage in (*failed, *blocked):
        tell(f"  {stage.id} {titles[stage.id]}: {outcome.errors[stage.id]}", sys.stderr)
    tell(f"To retry them: {again(args)}", sys.stderr)
    return SOME_FAILED


def console_on(file: TextIO) -> Console:
    """A console that wraps to the terminal, and never wraps what is piped. It sends its own styles, and nothing that
    what it shows would have the terminal do, or that the terminal's encoding does not have."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    from grid.contract.text import shown_on

    class Shown(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(shown_on(file, text), **how)  # before it is measured: tables stay aligned

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                # A control segment is rich's own: where the cursor goes.
                yield segment if segment.control else segment._replace(text=shown_on(file, segment.text))

    # A notebook is told lines, as a pipe is: rich would take it for a page, and its FORCE_COLOR for a terminal.
    piped: dict[str, Any] = {} if file.isatty() else {"width": 10_000, "soft_wrap": True, "force_terminal": False}
    lasting = cast("TextIO", Lasting(file))
    return Shown(file=lasting, emoji=False, force_jupyter=False, **piped)  # :x: in a name is no emoji


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    command()
