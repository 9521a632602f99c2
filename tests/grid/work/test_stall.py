"""A stage that does not get on fails with the reason, and what gets on slowly does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from grid.contract.files.layout import FAILURE
from grid.launch.data import Preparation
from grid.plan import Plan
from grid.store.store import TRACEBACK, Store
from grid.work.execute import Runtime, execute
from grid.work.stall import watched
from kd.machine.alive import tell_alive
from tests.launching import ROOT

Planner = Callable[..., Plan]


def test_what_hangs_is_told_once_with_the_place_where_it_stands() -> None:
    told: list[tuple[str, str]] = []
    over = threading.Event()

    def tell(reason: str, stack: str) -> None:
        told.append((reason, stack))
        over.set()

    with watched(0.005, tell):
        over.wait(30)
        time.sleep(0.5)
    ((reason, stack),) = told
    assert "no step, batch, picture or file was finished for 0.005 minutes" in reason
    assert "over.wait(30)" in stack


def test_what_gets_on_slowly_is_left_alone() -> None:
    told: list[str] = []
    with watched(0.01, lambda reason, stack: told.append(reason)):
        for _ in range(10):
            time.sleep(0.15)
            tell_alive()
    assert told == []


@pytest.mark.long
def test_time_in_which_the_process_stood_still_does_not_count() -> None:
    script = """
import sys, time
from grid.work.stall import watched
from kd.machine.alive import tell_alive

told = []
with watched(0.02, lambda reason, stack: told.append(reason)):
    print("begun", flush=True)
    for _ in range(8):
        time.sleep(0.3)
        tell_alive()
sys.exit(len(told))
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 0


def test_a_stage_that_hangs_has_failed_with_the_reason(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    stage, store, told = tiny_plan().data, Store(str(tmp_path)), threading.Event()
    errors: list[str] = []

    def on_stall(error: str) -> None:
        errors.append(error)
        told.set()

    execute(stage, store, replace(runtime, stall_minutes=0.005), lambda: told.wait(30) and None, on_stall=on_stall)
    failure = store.failure(stage, launch=runtime.launch)
    assert failure is not None
    assert [failure.error] == errors
    assert store.exists(f"{stage.folder}/{FAILURE}")
    assert b"told.wait(30)" in store.read(f"{stage.folder}/{TRACEBACK}")


@pytest.mark.long
def test_a_worker_that_hangs_is_ended(tmp_path: Path) -> None:
    script = """
import json, sys, time
from dataclasses import replace
from grid.read.grid_file import spec_from_dict
from grid.plan import make_plan
from grid.work.execute import Runtime, execute
from grid.store.store import Store
from tests.conftest import tiny_grid

stage = make_plan(spec_from_dict(tiny_grid(), what="grid")).data
execute(stage, Store(sys.argv[1]), Runtime(launch="l", stall_minutes=0.005), lambda: time.sleep(300))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, env=environment, timeout=120)
    assert done.returncode == 1
    assert len(list(tmp_path.glob("datasets/*/failure.json"))) == 1


def test_a_launch_waits_for_no_preparation_that_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    preparation = object.__new__(Preparation)
    preparation._over = threading.Event()
    monkeypatch.setattr(preparation, "_make_data", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        preparation._run()
    preparation.wait()


@pytest.mark.parametrize("minutes", ["0", "-1", "soon"])
def test_the_limit_is_a_time(minutes: str) -> None:
    from grid.errors import UserError
    from grid.read.grid_file import load_grid

    with pytest.raises(UserError, match=r"resources\.stall_minutes"):
        load_grid("digits", [f"resources.stall_minutes={minutes}"])
