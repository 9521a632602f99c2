"""How a grid stands, shown on the terminal: once, or anew until its end."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from datetime import UTC, datetime

from grid.contract.program.installed import analysis_command, grid_command, storage_option
from grid.contract.terminal import tell
from grid.errors import UserError
from grid.read.grid_file import load_grid, named_grids
from grid.store.store import Store
from grid.watch.planned import Planned
from grid.watch.signs import GridReader
from grid.watch.status import GridStatus, grid_status
from grid.watch.status_lines import lines

WATCH_SECONDS = 3.0
WATCHED_LINES = 8  # of each state


def show_status(storage: str, asked: str | None, *, watch: bool) -> bool:
    """How a grid stands on its storage; with `watch` until nothing is left to run, or Ctrl-C. asked: as `GridReader`
    takes it. Returns whether the grid is done, or on the way there. The plan is made again from what lies there, which
    builds no model and so runs no code of a factory."""
    reader = GridReader(Store(storage), asked)
    results = f"{analysis_command()} table {shlex.quote(reader.name)}{storage_option(storage)}"
    again = to_go_on(storage, reader.read().planned, asked)

    def look(limit: int | None = None) -> tuple[GridStatus, str]:
        now = datetime.now(UTC)
        status = grid_status(reader.read(now), now)
        return status, "\n".join(lines(status, again=again, results=results, limit=limit))

    if not watch:
        status, text = look()
        tell(text)
        return status.is_well

    from rich.live import Live
    from rich.text import Text

    from grid.watch.console import console_on

    try:
        with Live(console=console_on(sys.stdout), auto_refresh=False) as live:
            while True:
                status, text = look(WATCHED_LINES)
                live.update(Text(text), refresh=True)
                if status.is_over:
                    return status.is_well
                time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return True


def to_go_on(storage: str, planned: Planned, asked: str | None) -> str:
    """The command that goes on with a grid. Its storage knows neither the grid's file nor what --set has changed."""
    name, hint = planned.name, ""
    grid = asked if asked is not None and asked != name else name
    if grid == name and name not in named_grids():
        grid, hint = "FILE", f" (with the file of grid {name})"
    else:
        with contextlib.suppress(UserError):  # its images may be on another machine
            if planned.plan is None or planned.plan.spec != load_grid(grid):
                hint = " (with the --set and --data that it was launched with)"
    return f"{grid_command()} --grid {shlex.quote(grid)}{storage_option(storage)}{hint}"
