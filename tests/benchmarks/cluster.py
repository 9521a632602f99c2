"""(e), (f): what running under Ray costs a grid, its start, and a cell."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from grid.plan import CellStage, Plan, Stage, make_plan
from grid.plan.schedule import Schedule, State
from grid.read.grid_file import load_grid, spec_from_dict
from grid.store.store import Store
from tests.benchmarks.harness import Row
from tests.launching import Launch

ROOT = Path(__file__).parents[2]
GRID_REPEATS = 2
START_REPEATS = 5
FEW_CELLS = 40


def grid_vs_ideal() -> list[Row]:
    """Seconds of `launch.py --grid digits`, from the command to its end, over the seconds its stages took by their own
    records in that same run, divided by the number of cells that fit at a time."""
    ratios = []
    slots = len(os.sched_getaffinity(0))
    for _ in range(GRID_REPEATS):
        with tempfile.TemporaryDirectory() as storage:
            command = [sys.executable, "launch.py", "--grid", "digits", "--storage", storage, "--wandb", "disabled"]
            started = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            makespan = time.perf_counter() - started
            records = [json.loads(path.read_text()) for path in Path(storage).glob("*/*/record.json")]
        assert len(records) == len(make_plan(load_grid("digits")).stages)
        ratios.append(makespan / (sum(record["seconds_total"] for record in records) / slots))
    return [Row("grid_vs_ideal", statistics.median(ratios), "x seconds", min(ratios), max(ratios))]


def start_to_first_cell_s() -> list[Row]:
    """Seconds from the command `launch.py --grid digits` until the first cell is at work."""
    waits = []
    for _ in range(START_REPEATS):
        with tempfile.TemporaryDirectory() as name:
            started = time.perf_counter()
            launch = Launch("--grid", "digits", "--wandb", "disabled", folder=Path(name))
            launch.wait_until(lambda storage=Path(name, "runs"): any(storage.glob("cells/*/lease-*.json")))
            waits.append(time.perf_counter() - started)
            launch.kill()
    return [Row("start_to_first_cell_s", statistics.median(waits), "s", min(waits), max(waits))]


def cell_overhead_s() -> list[Row]:
    """Seconds between the ends of successive cells in one slot, less those that the later cell took by its own record:
    the median, once the worker is warm."""
    from grid.cluster.cells.pool import run_cells
    from grid.cluster.nodes.fleet import Fleet
    from grid.cluster.nodes.packing import Packing
    from grid.cluster.session import session
    from grid.work.execute import Runtime, prepare_dataset

    plan = _few_cells()
    with tempfile.TemporaryDirectory() as storage:
        run: dict[str, Any] = {"launch": "bench", "code_version": "bench"}
        runtime = Runtime.here(threads=1, device="cpu", **run)
        store = Store(storage)
        prepare_dataset(plan.data, store, runtime)
        ends: list[float] = []
        ended: list[CellStage] = []
        schedule = Schedule(plan, done={plan.data.id}, costs={}, observer=_Silent())

        def finish(cell: CellStage, error: str | None) -> None:
            assert error is None, error
            ends.append(time.perf_counter())
            ended.append(cell)
            schedule.finish(cell)

        with session(None, cpus=1):
            fleet = Fleet(plan.spec.resources, say=print)
            run_cells(
                schedule,
                store,
                fleet,
                Packing(plan, store, schedule, fleet.capacity),
                busy_lanes=lambda: 0,
                finish=finish,
                say=lambda cell, text: print(cell.id, text),
                scratch=f"{storage}/ray",
                run=run,
            )
        work = [store.record(cell).seconds_total for cell in ended]
    between = [after - before - own for (before, after), own in zip(pairwise(ends), work[1:], strict=True)][1:]
    quarters = statistics.quantiles(between, n=4)
    return [Row("cell_overhead_s", statistics.median(between), "s (low, high: quartiles)", quarters[0], quarters[2])]


def _few_cells() -> Plan:
    student = {"name": "resnet18", "args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}}
    spec = {
        "name": "overhead",
        "dataset": {"name": "digits", "train_size": 100, "test_size": 100},
        "students": [student],
        "modes": ["baseline"],
        "seeds": list(range(FEW_CELLS)),
        "recipe": {"epochs": 2, "batch_size": 50},
    }
    return make_plan(spec_from_dict(spec, what="benchmark"))


class _Silent:
    def on_change(self, stage: Stage, state: State, error: str | None) -> None:
        pass
