"""A cell that hangs in its worker fails with the reason, and the launch goes on to its end."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import tiny_grid
from tests.grid.read.test_own_models import MLP
from tests.launching import Launch, records, write_grid

MODELS = """
import time

class Sleeper(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(64, num_classes)
    def forward(self, x):
        if self.training and not x.is_meta:
            time.sleep(1000)  # as for a file that never comes
        return self.fc(x.flatten(1))

def sleeper(num_classes):
    return Sleeper(num_classes)
"""


def test_a_cell_that_hangs_fails_and_others_do_not(tmp_path: Path) -> None:
    code, storage = tmp_path / "models.py", tmp_path / "runs"
    code.write_text(MLP + MODELS)
    grid = tiny_grid(
        name="stalled",
        teachers=[],
        modes=["baseline"],
        seeds=[0],
        students=[f"{code}:sleeper", f"{code}:mlp"],
        resources={"stall_minutes": 0.15},
    )
    launch = Launch(
        *("--grid", write_grid(tmp_path, grid), "--cpus", "1", "--wandb", "disabled", "--storage", str(storage)),
        folder=tmp_path,
    )
    assert launch.finish() == 1, launch.text()
    err = launch.err.read_text()
    assert "1 stages failed" in err
    assert "sleeper alone, seed 0: StalledError: no step, batch, picture or file was finished for 0.15 minutes" in err
    (failed,) = storage.glob("cells/*/failure.txt")
    assert "time.sleep(1000)  # as for a file that never comes" in failed.read_text()
    assert len(records(storage, "cells")) == 1
