"""A launch in somebody else's process, as a notebook's cell runs it: interrupted, it leaves the process as it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import tiny_grid
from tests.launching import ROOT, write_grid

pytestmark = [pytest.mark.slow, pytest.mark.ray]

GRID = tiny_grid(
    name="guest",
    seeds=[0],
    students=[tiny_grid()["students"][1]],
    recipe={"epochs": 60, "batch_size": 5, "views": {"crop_padding": 1}, "evaluate_every": 30},
    resources={"checkpoint_minutes": 1e-3},
)

SCRIPT = """
import json, logging, os, signal, sys, threading
import launch

def state():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    objects = [*handlers, sys.excepthook, threading.excepthook, sys.stdout, sys.stderr, *logging.root.handlers]
    variables = {name: value for name, value in os.environ.items() if name.startswith(("RAY_", "TUNE_"))}
    return [*map(repr, objects), logging.root.level, variables, os.fstat(1).st_ino, os.fstat(2).st_ino]

argv, before, mine = json.loads(sys.argv[1]), state(), 41
for _ in range(2):
    status = launch.main(argv)
    print("SEEN", json.dumps([status, mine, state() == before]), flush=True)
"""


def test_interrupted_it_returns_and_the_same_call_goes_on(tmp_path: Path) -> None:
    storage, out = tmp_path / "runs", tmp_path / "out"
    argv = ["--grid", write_grid(tmp_path, GRID), "--storage", str(storage), "--cpus", "1", "--wandb", "disabled"]
    with out.open("w") as file:
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps(argv)], cwd=ROOT, stdout=file, stderr=file)
    try:
        until = time.monotonic() + 240
        while not list(storage.glob("*/*/checkpoint.pt")):
            assert process.poll() is None, out.read_text()
            assert time.monotonic() < until, out.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 0, out.read_text()
    finally:
        process.kill()
    text = out.read_text()
    assert "Interrupted with" in text
    seen = [json.loads(line.removeprefix("SEEN ")) for line in text.splitlines() if line.startswith("SEEN ")]
    assert seen == [[130, 41, True], [0, 41, True]], text
    assert len(list(storage.glob("cells/*/record.json"))) == 2
