"""Ray Train's controller is a process of 700 MB that leads a group of teachers' workers, and the first that the kernel
ends where memory is short: on a Ray of one CPU the next group needs what the lost one held."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.at_work import CONTROLLER_TITLE, title, workers
from tests.conftest import tiny_grid
from tests.launching import Launch, records, weights_of, write_grid


@pytest.mark.slow
def test_a_launch_goes_on_without_its_controller(tmp_path: Path) -> None:
    recipe = {"epochs": 60, "batch_size": 5, "views": {"crop_padding": 1}, "evaluate_every": 60}
    students = tiny_grid()["students"][1:]
    grid = write_grid(tmp_path, tiny_grid(name="controller", seeds=[0], students=students, recipe=recipe))
    common = ("--grid", grid, "--cpus", "1", "--wandb", "disabled")
    undisturbed = Launch(*common, "--storage", str(tmp_path / "undisturbed"), folder=tmp_path)
    assert undisturbed.finish() == 0, undisturbed.text()

    launch = Launch(*common, "--storage", str(tmp_path / "runs"), folder=tmp_path)
    launch.wait_until(lambda: bool(workers(tmp_path / "runs", "teachers")))
    (controller,) = (process for process in launch.seen.values() if title(process).startswith(CONTROLLER_TITLE))
    controller.kill()
    assert launch.finish() == 0, launch.text()
    assert len(records(tmp_path / "runs")) == len(records(tmp_path / "undisturbed"))
    assert weights_of(tmp_path / "runs") == weights_of(tmp_path / "undisturbed")
