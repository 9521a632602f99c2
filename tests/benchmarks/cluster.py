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

from grid.plan import Plan, Stage, make_plan
from grid.plan.schedule import Schedule, StageState
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
    from grid.cluster.nodes.fleet import Fleet
    from grid.cluster.nodes.packing import Packing
    from grid.cluster.pool.search import Pool, run_pool
    from grid.cluster.session import session
    from grid.cluster.teachers.lanes import Lanes
    from grid.work.dataset import prepare_dataset
    from grid.work.execute import Runtime

    plan = _few_cells()
    with tempfile.TemporaryDirectory() as storage:
        runtime = Runtime(launch="bench", code_version="bench").here(threads=1, device="cpu")
        store = Store(storage)
        prepare_dataset(plan.data, store, runtime)
        schedule = Schedule(plan, done={plan.data.id}, costs={}, observer=_Silent())
        ledger, scratch = _Ends(schedule), f"{storage}/ray"
        with session(None, cpus=1):
            fleet = Fleet(plan.spec.resources, say=print)
            packing = Packing(plan, store, schedule, fleet.capacity)
            lanes = Lanes(schedule, store, fleet.capacity(), scratch=scratch, runtime=runtime, ledger=ledger)
            pool = Pool(schedule, store, fleet, packing, lanes, ledger, runtime)
            run_pool(pool, scratch=scratch)
        work = [store.record(stage).seconds_total for stage, _ in ledger.ended]
    ends = [at for _, at in ledger.ended]
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


class _Ends:
    """Tells the schedule, and keeps when each stage ended."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.ended: list[tuple[Stage, float]] = []

    def start(self, stage: Stage) -> bool:
        return self.schedule.start(stage)

    def give_back(self, stage: Stage) -> None:
        self.schedule.give_back(stage)

    def finish(self, stage: Stage, error: str | None) -> None:
        assert error is None, error
        self.ended.append((stage, time.perf_counter()))
        self.schedule.finish(stage)

    def say(self, stage: Stage, text: str) -> None:
        print(stage.id, text)


class _Silent:
    def on_change(self, stage: Stage, state: StageState, error: str | None) -> None:
        pass
