"""A worker that Ray's memory monitor ends is the loss of one cell, which is tried again with fewer beside it."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from tests.conftest import tiny_grid
from tests.grid.read.test_own_models import MLP
from tests.launching import Launch, records, write_grid

GIB = 2**30
# What a launch and its workers take by themselves stays below the limit; what the cell then takes does not.
LIMIT, TAKEN, NEEDED = 6 * GIB, 9 * GIB, 11 * GIB

MODELS = """
import pathlib, time

class Hungry(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc, self.steps, self.kept = nn.Linear(64, num_classes), 0, []
    def forward(self, x):
        self.steps += self.training
        marker = pathlib.Path({marker!r})
        if self.steps == 20 and not marker.exists():
            marker.touch()
            for _ in range({count}):
                self.kept.append(b"\\1" * 2**26)
                time.sleep(0.02)
            time.sleep(60)
        return self.fc(x.flatten(1))

def hungry(num_classes):
    return Hungry(num_classes)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cpus", "how"), [("2", "; it goes on"), ("1", ", with no other stage beside it; it goes on")], ids=["two", "alone"]
)
def test_the_memory_monitor_ends_one_cell_and_not_the_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: str, how: str
) -> None:
    memory = psutil.virtual_memory()
    if memory.available < NEEDED:
        pytest.skip(f"needs {NEEDED / GIB:.0f} GiB of free memory, {memory.available / GIB:.0f} are")
    marker, code = tmp_path / "eaten", tmp_path / "models.py"
    code.write_text(MLP + MODELS.format(marker=str(marker), count=TAKEN // 2**26))
    grid = tiny_grid(
        name="memory",
        teachers=[],
        modes=["baseline"],
        seeds=[0],
        students=[f"{code}:mlp", f"{code}:hungry"],
        recipe={"epochs": 150, "batch_size": 5, "views": {"crop_padding": 1}, "evaluate_every": 50},
    )
    used = memory.total - memory.available
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(used + LIMIT) / memory.total:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    storage = tmp_path / "runs"
    launch = Launch(
        *("--grid", write_grid(tmp_path, grid), "--cpus", cpus, "--wandb", "disabled", "--storage", str(storage)),
        folder=tmp_path,
    )
    status = launch.finish()
    assert marker.exists()
    assert status == 0, launch.text()
    assert f"hungry alone, seed 0: its worker was ended, for its node ran out of memory{how}" in launch.out.read_text()
    assert "Traceback" not in launch.text()
    tries = {record["student"]: record["tries"] for record in map(read, records(storage, "cells"))}
    assert tries == {"mlp": 1, "hungry": 2}


def read(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_text())
    return found
