"""A grid on a real Ray: data-parallel teachers through Ray Train, cells through Ray Tune, failures contained."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from analysis.cli import table
from tests.conftest import tiny_grid
from tests.launching import ROOT, Launch, records, signature, weights_of, write_grid

# They diverge in their first epoch.
BROKEN = {
    "label": "Broken-S",
    "name": "resnet18",
    "args": {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]},
    "recipe": {"optimizer": "sgd", "learning_rate": 1e30, "schedule": "constant"},
}
BROKEN_TEACHER = {**BROKEN, "label": "Broken-T"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Launch, int]:
    """One launch for all tests here: a student that fails, two workers for a teacher that fails and then for one that
    does not. The environment names a Ray that does not answer: without --address it must not be looked at."""
    folder = tmp_path_factory.mktemp("run")
    grid = tiny_grid(
        teachers=[*tiny_grid()["teachers"], BROKEN_TEACHER],
        students=[*tiny_grid()["students"], BROKEN],
        seeds=[0, 1],
        resources={"teacher_workers": 2},
        name="mixed",
    )
    path = write_grid(folder, grid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        launch = Launch("--grid", path, "--storage", "runs", "--cpus", "2", folder=folder)
    return folder, path, launch, launch.finish()


def test_one_failing_student_leaves_the_others_alone(ran: tuple[Path, str, Launch, int]) -> None:
    folder, path, launch, status = ran
    err = launch.err.read_text()
    assert status == 1, launch.text()
    assert "5 stages failed, 7 were not run because of them" in err
    assert err.count("DivergedError: the loss is") == 5
    assert "Broken-S alone, seed 0" in err
    assert "teacher Broken-T" in err
    assert f"To retry them: python {ROOT / 'launch.py'} --grid {path}" in err
    done = [json.loads(p.read_text()) for p in records(folder / "runs", "cells")]
    assert len(done) == 8
    failures = sorted((folder / "runs").glob("cells/*/failure.json"))
    assert len(failures) == 4


def test_a_teacher_that_fails_leaves_the_next_of_its_lane_to_two_workers(ran: tuple[Path, str, Launch, int]) -> None:
    """The cheaper one is the first; its failure ends the workers, and others go on with the second."""
    folder, _, launch, _ = ran
    (failure,) = [json.loads(p.read_text()) for p in (folder / "runs").glob("teachers/*/failure.json")]
    assert failure["error"].startswith("DivergedError: the loss is nan at epoch 1, step 2 of 3")
    out = launch.out.read_text()
    assert out.index("teacher Broken-T: FAILED") < out.index("teacher ResNet-T: top-1")
    (teacher,) = [json.loads(p.read_text()) for p in records(folder / "runs", "teachers")]
    assert teacher["workers"] == 2
    assert teacher["train_top1_last"] > 0


def test_the_output_is_plain_lines_and_a_table(ran: tuple[Path, str, Launch, int]) -> None:
    folder, _, launch, _ = ran
    out = launch.out.read_text()
    assert "\x1b" not in out
    assert "[23/23 " in out
    assert "ray" not in out.lower().replace("array", ""), "Ray's own chatter belongs into the log"
    log = folder / "runs/grids/mixed/launch.log"
    assert f"log in {log}" in out
    assert "Ray's own logs:" in log.read_text()
    assert table(str(folder / "runs"), "mixed") in out
    assert "**Unfinished**" in out
    assert "9 of 20 teachers and cells (5 failed, 6 missing)" in out


def test_weights_and_biases_has_a_run_for_each_finished_teacher_and_cell(ran: tuple[Path, str, Launch, int]) -> None:
    folder = ran[0]
    runs = sorted((folder / "runs/grids/mixed/wandb").glob("offline-run-*"))
    ids = {run.name.rsplit("-", 1)[-1] for run in runs}
    assert ids == {p.parent.name for kind in ("teachers", "cells") for p in records(folder / "runs", kind)}


def test_ray_leaves_nothing_in_the_storage(ran: tuple[Path, str, Launch, int]) -> None:
    folder = ran[0]
    assert {p.name for p in (folder / "runs").iterdir()} == {"cells", "datasets", "grids", "logits", "teachers"}
    assert {p.name for p in (folder / "runs/grids/mixed").iterdir()} == {"launch.log", "plan.json", "wandb"}


OWN = """
from torch import nn

def mlp(num_classes, width=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, num_classes))
"""


@dataclass
class Watched:
    """A launch of a user's own models and trained teacher, by relative paths, from a folder that no worker knows. Who
    read its output has left after a line; another process has looked at it, while it ran and afterwards."""

    folder: Path
    given: dict[str, torch.Tensor]
    launch: Launch
    first_line: str = ""
    while_running: str = ""

    def look(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "launch.py"), "--status", "own.yaml", "--storage", "runs"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def shows_training(self) -> bool:
        if not list(self.folder.glob("runs/cells/*/progress.json")):
            return False
        looked = self.look()
        assert looked.returncode == 0, looked.stderr
        self.while_running = looked.stdout
        return re.search(r"  ViT-S alone, seed 0: epoch \d+ of 100 on \S+, for ", looked.stdout) is not None


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_models.py").write_text(OWN)
    space: dict[str, Any] = {}
    exec(OWN, space)
    given = space["mlp"](10, width=32).state_dict()
    torch.save({"state_dict": given}, folder / "teacher.pth")
    teacher = {"label": "Given", "factory": "my_models.py:mlp", "args": {"width": 32}, "checkpoint": "teacher.pth"}
    students = ["my_models.py:mlp", tiny_grid()["students"][0]]
    recipe = {"epochs": 100, "batch_size": 5, "evaluate_every": 100}
    write_grid(folder, tiny_grid(name="own", teachers=[teacher], students=students, seeds=[0], recipe=recipe))
    args = ("--grid", "own.yaml", "--storage", "runs", "--wandb", "disabled")  # and all CPUs
    launch = Launch(*args, folder=folder, piped=True)
    watched = Watched(folder, given, launch)
    try:
        assert launch.process.stdout is not None
        watched.first_line = launch.process.stdout.readline()
        launch.process.stdout.close()
        launch.wait_until(watched.shows_training)
        launch.finish(500)
        yield watched
    finally:
        launch.kill()


def test_a_users_own_models_and_trained_teacher_reach_the_workers(watched: Watched) -> None:
    """No teacher is trained."""
    (weights,) = (data for name, data in weights_of(watched.folder / "runs").items() if name.startswith("teachers"))
    kept = safetensors.torch.load(weights)
    assert all(torch.equal(kept[name], watched.given[name]) for name in watched.given)
    assert "Given (2.4K)" in table(str(watched.folder / "runs"), "own")
    assert len(records(watched.folder / "runs", "cells")) == 4


def test_a_reader_that_leaves_does_not_stop_the_grid(watched: Watched) -> None:
    assert watched.first_line.startswith("Grid own: 7 stages")
    assert watched.launch.process.returncode == 0, watched.launch.text()
    assert watched.launch.err.read_text() == ""
    assert len(records(watched.folder / "runs")) == 7


def test_a_launch_is_looked_at_from_another_process(watched: Watched) -> None:
    assert "Running:" in watched.while_running
    done = watched.look()
    assert done.returncode == 0, done.stderr
    assert "  teachers        1 of 1 done" in done.stdout
    assert "  cells           4 of 4 done" in done.stdout
    assert "To see the table: kd-analysis table own" in done.stdout


def test_tune_may_wait_for_a_teacher_without_any_trial() -> None:
    """Where only cells of a teacher that is not ready are left, Tune has none, and must not look for the first."""
    script = """
from grid.cluster.session import quiet
quiet(None)
import time
from ray.tune.execution import insufficient_resources_manager as manager
for on_cluster in (False, True):
    manager._is_ray_cluster = lambda: on_cluster
    waiting = manager._InsufficientResourcesManager()
    for now in (0.0, 1.0, 1e9, 2e9):
        time.monotonic = lambda: now
        waiting.on_no_available_trials([])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_done_is_not_computed_again_and_needs_no_ray(ran: tuple[Path, str, Launch, int]) -> None:
    folder, path, _, _ = ran
    before = signature(folder / "runs")
    good = [f"{axis}={json.dumps(tiny_grid()[axis])}" for axis in ("teachers", "students")]
    sets = [word for change in (*good, "name=good") for word in ("--set", change)]
    again = Launch("--grid", path, "--storage", "runs", *sets, folder=folder)
    assert again.finish() == 0, again.text()
    out = again.out.read_text()
    assert "Everything was done already" in out
    assert "4 of" not in out
    assert out.count("ResNet → ") == 2
    assert "Ray's own logs" not in (folder / "runs/grids/good/launch.log").read_text()
    assert signature(folder / "runs") == before
