"""A launch with its terminal and its log."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NoReturn, Protocol

from grid.cluster import token
from grid.cluster.session import output_to
from grid.contract.files.layout import grid_folder
from grid.launch.guest import logged_to_stderr
from grid.launch.launch import Options, Outcome
from grid.launch.run import run_grid
from grid.plan import Plan
from grid.read.datasets import described
from grid.store.probe import check_writable
from grid.store.store import Store
from grid.watch.console import console_on

LOG = "launch.log"

Say = Callable[[str], None]


class Export(Protocol):
    """Where the stages that are done are told of too, such as W&B."""

    def add(self, stage_id: str) -> None: ...

    def add_all(self) -> None: ...


def run_logged(
    plan: Plan,
    store: Store,
    options: Options,
    *,
    export: Callable[[Say], AbstractContextManager[Export]],
    leave: Callable[[Outcome], NoReturn] | None,
) -> Outcome:
    """Run a plan; what libraries print meanwhile goes to the log. export: takes what tells the user a line. leave: ends
    the process of a launch that was interrupted, or whose Ray is lost; None where it goes on. Raises UserError before
    anything has started."""
    has_token = token.is_given()
    dashboard = options.dashboard
    if dashboard is not None:
        dashboard.check()
    check_writable(store)
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
        exporter = stack.enter_context(export(say))

        def end(outcome: Outcome) -> None:
            assert leave is not None
            stack.close()
            leave(outcome)

        outcome = run_grid(
            plan,
            store,
            options,
            console,
            on_done=lambda stage: exporter.add(stage.id),
            on_lost_ray=end if leave is not None else None,
        )
        if outcome.interrupted and leave is not None:
            # At once: Ray's own exit handler could meet a teacher's thread that is still inside Ray, and end in
            # status 1.
            end(outcome)
        if not outcome.interrupted:
            exporter.add_all()
    return outcome
