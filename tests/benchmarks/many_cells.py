"""(i): what a thousand cells over several nodes cost the launch that hands them out."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.benchmarks.harness import Row
from tests.benchmarks.memory import MB
from tests.ray_cluster import ENVIRONMENT, RayCluster

ROOT = Path(__file__).parents[2]
NODES = 4  # of one CPU each
CELLS, STEP = 1000, 100
EARLY, LATE = (100, 500), (500, 1000)
DONE = re.compile(r"\[ *(\d+)/\d+ ")
RESIDENT, OWN = 0, 1


def cells_1000() -> list[Row]:
    """A launch of CELLS tiny cells over NODES logical nodes of a Ray on this machine. Seconds a cell and slot, less
    those that the cell took by its own record, once the workers are warm and again for the later half; and the memory
    of the launching process, and how much it grows a cell: each from hundred to hundred, median and extremes."""
    with tempfile.TemporaryDirectory() as name, RayCluster() as cluster:
        folder = Path(name)
        for _ in range(NODES):
            cluster.add_node(cpus=1)
        memory = _launch(folder, cluster.address)
        paths = sorted(folder.glob("runs/cells/*/record.json"), key=lambda path: path.stat().st_mtime)
        ends = [path.stat().st_mtime for path in paths]
        work = [float(json.loads(path.read_text())["seconds_total"]) for path in paths]
    assert len(ends) == CELLS
    rows = [
        _overhead(f"cells_{first}_to_{last}_s", ends[first - 1 : last], work[first:last])
        for first, last in (EARLY, LATE)
    ]
    for done in (EARLY[0], *(last for _, last in (EARLY, LATE))):
        resident, own = (bytes_ / MB for bytes_ in memory[done])
        rows.append(Row(f"driver_after_{done}_mb", own, f"MB, its own; resident {resident:.0f}", own, own))
    for name, kind in (("driver_kb_a_cell", OWN), ("driver_rss_kb_a_cell", RESIDENT)):
        steps = [(after[kind] - before[kind]) / 1e3 / STEP for before, after in pairwise(memory.values())]
        rows.append(Row(name, statistics.median(steps), "KB", min(steps), max(steps)))
    return rows


def _overhead(name: str, ends: list[float], work: list[float]) -> Row:
    """ends: one more than cells, the first when the one before them was done; low and high: of each STEP cells."""

    def of(first: int, last: int) -> float:
        return ((ends[last] - ends[first]) * NODES - sum(work[first:last])) / (last - first)

    parts = [of(first, first + STEP) for first in range(0, len(work), STEP)]
    return Row(name, of(0, len(work)), "s", min(parts), max(parts))


def _launch(folder: Path, address: str) -> dict[int, tuple[int, int]]:
    """Run the grid as a user would. Bytes of the launching process, resident and its own, by the cells that it has said
    are done."""
    (folder / "grid.yaml").write_text(yaml.safe_dump(_grid()), encoding="utf-8")
    command = [sys.executable, str(ROOT / "launch.py"), "--grid", "grid.yaml", "--wandb", "disabled"]
    environment = {**os.environ, **ENVIRONMENT}
    process = subprocess.Popen(
        [*command, "--address", address], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    memory = {}
    for line in process.stdout:
        found = DONE.match(line)
        cells = int(found[1]) - 1 if found else 0  # the data set is done before them
        if cells and cells % STEP == 0:
            facts = psutil.Process(process.pid).memory_full_info()
            memory[cells] = (facts.rss, facts.uss)
    assert process.wait() == 0
    return memory


def _grid() -> dict[str, Any]:
    student = {"name": "resnet18", "args": {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}}
    return {
        "name": "many",
        "dataset": {"name": "digits", "train_size": 40, "val_size": 20, "test_size": 40},
        "students": [student],
        "modes": ["baseline"],
        "seeds": list(range(CELLS)),
        "recipe": {"epochs": 1, "batch_size": 20},
    }
