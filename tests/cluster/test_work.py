"""Workers import what they need, and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.launching import ROOT


@pytest.mark.long
def test_a_worker_does_without_wandb_and_may_import_it_all_the_same() -> None:
    script = """
import sys
from grid.cluster.work import import_work
import_work()
assert "timm" in sys.modules and "grid.work.training" in sys.modules
assert "wandb" not in sys.modules
import wandb  # as a user's own model may
assert wandb.__version__
import_work()
assert sys.modules["wandb"] is wandb
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
