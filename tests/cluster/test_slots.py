"""Every slot works, also where cells are shorter than a worker's start."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.at_work import workers
from tests.conftest import tiny_grid
from tests.launching import Launch, records, write_grid

SLOTS = 2
SEEDS = 60  # their cells take longer than a worker of the second slot takes to start
TITLES = ("ray::Worker", "ray::ResourceTrainable")


def test_a_slot_that_a_teacher_had_is_filled_by_short_cells(tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    grid = write_grid(tmp_path, tiny_grid(name="short", seeds=[*range(SEEDS)]))
    launch = Launch(
        *("--grid", grid, "--cpus", str(SLOTS), "--wandb", "disabled", "--storage", str(storage)), folder=tmp_path
    )
    cells = 4 * SEEDS
    late: set[int] = set()
    started: set[int] = set()

    def is_over() -> bool:
        done = len(records(storage, "cells"))
        if done > cells / 2:
            late.update(worker.pid for worker in workers(storage, "cells"))
        started.update(pid for pid, process in launch.seen.items() if _title(process).startswith(TITLES))
        return done == cells

    launch.wait_until(is_over)
    assert launch.finish() == 0, launch.text()
    assert len(late) == SLOTS, "of the later half"
    assert len(started) <= 2 * SLOTS


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
