"""Two launches of one grid over one storage share its work: each stage is computed once."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest

from analysis.read.load import load_grid
from tests.at_work import Worker, workers
from tests.conftest import tiny_grid
from tests.launching import Launch, records, signature, write_grid


def test_two_launches_share_the_work(tmp_path: Path) -> None:
    recipe = {"epochs": 12, "batch_size": 5, "views": {"crop_padding": 1}, "evaluate_every": 12}
    path = write_grid(tmp_path, tiny_grid(recipe=recipe, name="shared"))
    storage = tmp_path / "runs"
    common = ("--grid", path, "--wandb", "disabled", "--cpus", "2")
    launches = [Launch(*common, "--storage", str(storage), folder=tmp_path / str(i)) for i in range(2)]
    assert [launch.finish(500) for launch in launches] == [0, 0], "\n".join(launch.text() for launch in launches)

    total = len(load_grid(str(storage), "shared").stages)
    counts = [re.search(r"^Done: (\d+) stages computed, (\d+) reused\.$", x.out.read_text(), re.M) for x in launches]
    computed = [int(found[1]) for found in counts if found]
    assert len(computed) == 2, "\n".join(launch.text() for launch in launches)
    assert sum(computed) == total, "a stage was computed twice, or by nobody"
    assert min(computed) > 0, "one of them did it all"
    assert len(records(storage)) == total
    assert not list(storage.glob("*/*/lease-*.json"))


@pytest.mark.slow
def test_a_frozen_workers_stage_is_taken_over_and_left_as_it_is(tmp_path: Path) -> None:
    """Sooner than clocks that differ could tell: the other launch has listened for a minute."""
    recipe = {"epochs": 150, "batch_size": 5, "views": {"crop_padding": 1}, "evaluate_every": 50}
    grid = tiny_grid(name="frozen", teachers=[], modes=["baseline"], seeds=[0], recipe=recipe)
    storage = tmp_path / "runs"
    common = ("--grid", write_grid(tmp_path, grid), "--wandb", "disabled", "--cpus", "1", "--storage", str(storage))
    first = Launch(*common, folder=tmp_path / "first")
    stopped: list[Worker] = []

    def has_stopped() -> bool:
        stopped.extend(worker for worker in workers(storage, "cells") if worker.stop())
        return bool(stopped)

    first.wait_until(has_stopped)
    (frozen,) = stopped
    second = Launch(*common, folder=tmp_path / "second")
    assert second.finish(400) == 0, second.text()
    found = signature(storage)
    assert str(frozen.folder / "record.json") in found
    outputs = {path: path.read_bytes() for path in frozen.folder.iterdir() if not path.name.startswith("progress")}
    psutil.Process(frozen.pid).resume()

    assert first.finish() == 0, first.text()
    assert signature(storage) == found
    assert {path: path.read_bytes() for path in frozen.folder.iterdir() if path.name != "progress.json"} == outputs
