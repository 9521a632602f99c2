"""Ended by Ctrl-C, a closed terminal and kill -9, a grid ends with the very same table, and nothing done is redone."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from analysis.cli import table
from grid.plan import Plan, make_plan
from grid.read.grid_file import spec_from_dict
from grid.store.plan_file import write_plan
from grid.store.store import Store
from grid.work.execute import Runtime
from tests.at_work import workers
from tests.conftest import tiny_grid
from tests.grid.running import prepare, train
from tests.launching import ROOT, Launch, records, signature, weights_of, write_grid

# Checkpoints every few steps: most of what ends it comes within an epoch.
GRID = tiny_grid(
    name="killed",
    seeds=[0],
    recipe={"epochs": 40, "batch_size": 5, "views": {"crop_padding": 1}, "evaluate_every": 20},
    resources={"checkpoint_minutes": 1e-3},
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(spec_from_dict(GRID, what="grid killed"))


@pytest.fixture(scope="module")
def undisturbed(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of the same grid, each stage computed at one go in this process."""
    folder = tmp_path_factory.mktemp("whole")
    store, runtime = Store(str(folder)), Runtime().here(threads=1, device="cpu")
    write_plan(plan, store)
    prepare(plan, store, runtime)
    for cell in plan.cells:
        assert train(cell, store, runtime) is None
    return folder


@pytest.mark.parametrize("every_way", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_interrupted_and_killed_it_ends_with_the_same_table(
    tmp_path: Path, plan: Plan, undisturbed: Path, every_way: bool
) -> None:
    """By Ctrl-C and kill -9; or by SIGTERM, to it and to all, and by a closed terminal as well."""
    path, broken = write_grid(tmp_path, GRID), tmp_path / "broken"
    distilled = {cell.folder for cell in plan.cells if cell.mode == "distilled"}
    started = 0.0

    def launch() -> Launch:
        nonlocal started
        started = time.time()
        common = ("--grid", path, "--wandb", "disabled", "--cpus", "2", "--storage", str(broken))
        return Launch(*common, folder=tmp_path)

    def checkpoints() -> list[Path]:
        return list(broken.glob("*/*/checkpoint.pt"))

    def at_work() -> set[str]:
        """Folders of what the last launch has saved something of, and not finished."""
        saved = set()
        for checkpoint in checkpoints():
            try:
                if checkpoint.stat().st_mtime > started:
                    saved.add(str(checkpoint.parent.relative_to(broken)))
            except FileNotFoundError:  # finished at this moment
                continue
        return saved

    # Ctrl-C while something is being trained: it saves a checkpoint and leaves.
    first = launch()
    first.wait_until(lambda: bool(at_work()))
    first.interrupt(signal.SIGINT)
    assert first.finish(60) == 130, first.text()
    assert "Stopping: waiting for" in first.out.read_text()
    assert "Interrupted" in first.err.read_text()
    assert f"To go on: python {ROOT / 'launch.py'} --grid {path}" in first.err.read_text(), "as it was typed"
    assert re.search(r"^  .*: saved at epoch [0-9.]+ of 40$", first.err.read_text(), re.MULTILINE), first.text()
    assert first.left_over(timeout=20) == []
    assert not list(broken.glob("*/*/failure.json")), "interrupted is not failed"
    assert not list(broken.glob("*/*/lease-*.json")), "given back"
    assert checkpoints(), "what was running goes on from its last step saved"

    if every_way:
        # SIGTERM, as a scheduler would send it, and once more: it leaves at once.
        preempted = launch()
        preempted.wait_until(lambda: len(records(broken, "cells")) >= 1 and bool(at_work()))
        preempted.interrupt(signal.SIGTERM)
        preempted.wait_until(lambda: "Stopping" in preempted.out.read_text())
        preempted.interrupt(signal.SIGTERM)
        assert preempted.finish(60) == 130, preempted.text()
        assert "Interrupted" in preempted.err.read_text()
        assert not list(broken.glob("*/*/failure.json")), "interrupted is not failed"

        # SIGTERM to all of its processes at once, as `timeout` and batch systems send it: Ray itself ends at that.
        evicted = launch()
        evicted.wait_until(lambda: any(one.pid in evicted.seen for one in workers(broken, "teachers", "cells")))
        evicted.interrupt_all(signal.SIGTERM)
        assert evicted.finish(30) == 130, evicted.text()
        assert "Interrupted" in evicted.err.read_text()
        assert not list(broken.glob("*/*/failure.json")), "interrupted is not failed"

        # A terminal that is closed: SIGHUP to all that runs in it. Ray stays, and what is at work saves.
        cut_off = launch()
        cut_off.wait_until(lambda: bool(at_work()))
        cut_off.interrupt_all(signal.SIGHUP)
        assert cut_off.finish(60) == 130, cut_off.text()
        assert "Stopping: waiting for" in cut_off.out.read_text()
        assert "Interrupted with" in cut_off.err.read_text(), "a Ray that is lost is told otherwise"
        assert not list(broken.glob("*/*/failure.json")), "interrupted is not failed"

    # kill -9 once a distilled cell, too, has a checkpoint.
    done = signature(broken)
    second = launch()
    second.wait_until(lambda: bool(at_work() & distilled))
    second.kill()
    assert signature(broken).items() >= done.items()
    done = signature(broken)
    total = len(records(undisturbed))
    assert len(done) < total

    third = launch()
    assert third.finish() == 0, third.text()
    assert signature(broken).items() >= done.items(), "a finished stage was computed again"
    assert len(records(broken)) == total
    assert f"Done: {total - len(done)} stages computed, {len(done)} reused." in third.out.read_text()
    # Without the models below it, which were timed.
    first_table, second_table = (
        table(str(storage), "killed").partition("#### Models")[0] for storage in (broken, undisturbed)
    )
    assert first_table == second_table
    weights, of_broken = weights_of(undisturbed), weights_of(broken)
    assert len(weights) == len(of_broken) == len(plan.teachers) + len(plan.cells)
    assert [name for name in weights if weights[name] != of_broken[name]] == []
    if every_way:
        assert preempted.left_over() == [], "Ray's agents outlive a launch that left at once by a minute at most"
