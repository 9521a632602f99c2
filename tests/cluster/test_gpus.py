"""Cells share a GPU by what their students take of its memory, and one that finds too little gets more. The GPU is
logical, as Ray schedules it; what was measured and what runs out of memory is played."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid.contract.program.version import MODULES, PACKAGES
from grid.plan import make_plan
from grid.read.grid_file import load_grid
from grid.store.store import Store
from grid.work.memory.gpu import FOLDER, memory_key
from tests.conftest import tiny_grid
from tests.launching import ROOT, Launch, records, write_grid
from tests.ray_cluster import ENVIRONMENT, RayCluster

MODELS = """
import pathlib
import uuid

import torch
from torch import nn


CUDA = "CUDA error: out of memory\\nSearch for `cudaErrorMemoryAllocation'"


class Greedy(nn.Module):
    # Out of memory in training, as often as `times`; each time leaves a mark.
    def __init__(self, classes, marks, times):
        super().__init__()
        self.head, self.marks, self.times = nn.Linear(64, classes), pathlib.Path(marks), times

    def forward(self, images):
        if self.training and len(images) > 2 and len(list(self.marks.iterdir())) < self.times:
            (self.marks / uuid.uuid4().hex).touch()
            first = len(list(self.marks.iterdir())) == 1
            # PyTorch's allocator says it, or CUDA itself.
            raise torch.OutOfMemoryError("CUDA out of memory") if first else torch.AcceleratorError(CUDA)
        return self.head(images.flatten(1))


def greedy(num_classes, marks, times):
    return Greedy(num_classes, marks, times)
"""


def elsewhere(folder: Path) -> Path:
    """Another version of the program, in a folder that no node has on its path."""
    for name in (*PACKAGES, *(f"{module}.py" for module in MODULES)):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        folder.mkdir(exist_ok=True)
        copy(ROOT / name, folder / name)
    with open(folder / "grid" / "errors.py", "a") as file:
        file.write("\n# another version\n")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with pytest.MonkeyPatch.context() as patch, RayCluster() as cluster:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        cluster.add_node(cpus=6, gpus=1)
        yield cluster


@pytest.mark.slow
def test_cells_are_packed_by_memory_and_teachers_take_what_workers_there_are(
    cluster: RayCluster, tmp_path: Path
) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    marks = {name: tmp_path / name for name in ("Crowded", "Huge")}
    for folder in marks.values():
        folder.mkdir()
    factory = f"{tmp_path / 'models.py'}:greedy"
    students = [
        {"label": "Crowded", "factory": factory, "args": {"marks": str(marks["Crowded"]), "times": 2}},
        {"label": "Huge", "factory": factory, "args": {"marks": str(marks["Huge"]), "times": 100}},
        tiny_grid()["students"][1],
    ]
    resources = {"gpus_per_cell": "auto", "gpus_per_teacher_worker": 0, "teacher_workers": [1, 2]}
    path = write_grid(tmp_path, tiny_grid(name="packed", students=students, seeds=[0, 1], resources=resources))
    plan, store = make_plan(load_grid(path)), Store(str(tmp_path / "runs"))
    for cell in plan.cells:
        taken = {"Crowded": 10, "Huge": 90, "ResNet-S": 30}[cell.model.shown]
        facts = json.dumps({"taken": taken, "total": 100, "gpu": "played"})
        store.write(f"{FOLDER}/{memory_key(cell)}.json", facts.encode())

    # By a program that the nodes have never seen: it is not the one that is installed in their environment.
    program = elsewhere(tmp_path / "program")
    address = ("--address", cluster.address)
    launch = Launch(
        "--grid", path, *address, "--storage", "runs", "--wandb", "disabled", folder=tmp_path, program=program
    )
    assert launch.finish() == 1, launch.text()
    out, err = launch.out.read_text(), launch.err.read_text()
    assert "Ray at" in out
    assert "1 node, 6 CPUs, 1 GPUs" in out

    # Four cells of Crowded, a quarter of the GPU each, and more for whoever finds too little; none is lost.
    done = [json.loads(record.read_text()) for record in records(tmp_path / "runs", "cells")]
    assert sorted(record["student"] for record in done) == ["greedy"] * 4 + ["resnet18"] * 4
    assert len(list(marks["Crowded"].iterdir())) == 2
    assert out.count("no memory left beside others on the GPU; it gets ") == 2
    assert re.search(r"^Crowded .*, seed \d: .* it gets 0\.5 of one from now on$", out, re.MULTILINE)

    # What has a GPU for itself has failed, once each, and says what to do.
    assert len(list(marks["Huge"].iterdir())) == 4
    assert err.count("Huge: no memory is left on the GPU for 20 images at a time: set a smaller micro_batch_size") == 4

    (teacher,) = [json.loads(record.read_text()) for record in records(tmp_path / "runs", "teachers")]
    assert teacher["workers"] == 2
    assert teacher["code_version"].endswith(")")
    assert "(sha256 " in teacher["code_version"]
