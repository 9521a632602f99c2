"""Ended by Ctrl-C, a closed terminal and kill -9, a grid ends with the very same table, and nothing done is redone."""

from __future__ import annotations

import re
import signal
import time
from dataclasses import dataclass
from itertools import pairwise
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


@dataclass
class End:
    """What one end of a launch left."""

    status: int | None
    out: str
    err: str
    done: dict[str, tuple[int, int]]
    """the records, by when they were written"""
    failures: int
    leases: int
    checkpoints: int


class Story:
    """One storage, and the launches over it, each of which is ended in a way of its own."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.path, self.storage, self.folder = write_grid(folder, GRID), folder / "broken", folder
        self.distilled = {cell.folder for cell in plan.cells if cell.mode == "distilled"}
        self.ends: dict[str, End] = {}
        self.launches: dict[str, Launch] = {}
        self.started = 0.0

    def launch(self) -> Launch:
        self.started = time.time()
        common = ("--grid", self.path, "--wandb", "disabled", "--cpus", "2", "--storage", str(self.storage))
        return Launch(*common, folder=self.folder)

    def ended(self, how: str, launch: Launch, status: int | None) -> None:
        self.launches[how] = launch
        self.ends[how] = End(
            status,
            launch.out.read_text(),
            launch.err.read_text(),
            signature(self.storage),
            failures=len(list(self.storage.glob("*/*/failure.json"))),
            leases=len(list(self.storage.glob("*/*/lease-*.json"))),
            checkpoints=len(self.checkpoints()),
        )

    def checkpoints(self) -> list[Path]:
        return list(self.storage.glob("*/*/checkpoint.pt"))

    def at_work(self) -> set[str]:
        """Folders of what the last launch has saved something of, and not finished."""
        saved = set()
        for checkpoint in self.checkpoints():
            try:
                if checkpoint.stat().st_mtime > self.started:
                    saved.add(str(checkpoint.parent.relative_to(self.storage)))
            except FileNotFoundError:  # finished at this moment
                continue
        return saved

    def ctrl_c(self) -> None:
        """While something is being trained."""
        launch = self.launch()
        launch.wait_until(lambda: bool(self.at_work()))
        launch.interrupt(signal.SIGINT)
        self.ended("Ctrl-C", launch, launch.finish(60))

    def sigterm_twice(self) -> None:
        """As a scheduler would send it, and once more."""
        launch = self.launch()
        launch.wait_until(lambda: len(records(self.storage, "cells")) >= 1 and bool(self.at_work()))
        launch.interrupt(signal.SIGTERM)
        launch.wait_until(lambda: "Stopping" in launch.out.read_text())
        launch.interrupt(signal.SIGTERM)
        self.ended("SIGTERM twice", launch, launch.finish(60))

    def sigterm_to_all(self) -> None:
        """To all of its processes at once, as `timeout` and batch systems send it: Ray itself ends at that."""
        launch = self.launch()
        launch.wait_until(lambda: any(one.pid in launch.seen for one in workers(self.storage, "teachers", "cells")))
        launch.interrupt_all(signal.SIGTERM)
        self.ended("SIGTERM to all", launch, launch.finish(30))

    def closed_terminal(self) -> None:
        """SIGHUP to all that runs in it. Ray stays, and what is at work saves."""
        launch = self.launch()
        launch.wait_until(lambda: bool(self.at_work()))
        launch.interrupt_all(signal.SIGHUP)
        self.ended("closed terminal", launch, launch.finish(60))

    def kill(self) -> None:
        """With -9, once a distilled cell, too, has a checkpoint."""
        launch = self.launch()
        launch.wait_until(lambda: bool(self.at_work() & self.distilled))
        launch.kill()
        self.ended("kill -9", launch, None)

    def finish(self) -> None:
        launch = self.launch()
        self.ended("finished", launch, launch.finish())


@pytest.fixture(scope="module", params=["two ways", pytest.param("every way", marks=pytest.mark.slow)])
def story(request: pytest.FixtureRequest, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Ended by Ctrl-C and kill -9, or by every signal as well; and then left to finish."""
    told = Story(plan, tmp_path_factory.mktemp("told"))
    told.ctrl_c()
    if request.param == "every way":
        told.sigterm_twice()
        told.sigterm_to_all()
        told.closed_terminal()
    told.kill()
    told.finish()
    return told


def test_every_signal_interrupts_and_nothing_has_failed(story: Story) -> None:
    signals = [end for how, end in story.ends.items() if how not in ("kill -9", "finished")]
    assert {end.status for end in signals} == {130}
    assert all("Interrupted" in end.err for end in signals), "a Ray that is lost is told otherwise"
    assert {end.failures for end in story.ends.values()} == {0}


def test_ctrl_c_has_what_runs_save_and_says_how_to_go_on(story: Story) -> None:
    end = story.ends["Ctrl-C"]
    assert "Stopping: waiting for" in end.out
    assert f"To go on: python {ROOT / 'launch.py'} --grid {story.path}" in end.err, "as it was typed"
    assert re.search(r"^  .*: saved at epoch [0-9.]+ of 40$", end.err, re.MULTILINE), end.out + end.err
    assert end.leases == 0, "given back"
    assert end.checkpoints, "what was running goes on from its last step saved"
    assert story.launches["Ctrl-C"].left_over(timeout=20) == []


@pytest.mark.slow
@pytest.mark.parametrize("story", ["every way"], indirect=True)
def test_a_closed_terminal_leaves_ray_and_has_what_runs_save(story: Story) -> None:
    assert "Stopping: waiting for" in story.ends["closed terminal"].out


def test_what_is_done_is_never_computed_again(story: Story, undisturbed: Path) -> None:
    ends, total = [*story.ends.values()], len(records(undisturbed))
    for before, after in pairwise(ends):
        assert after.done.items() >= before.done.items()
    last, killed = ends[-1], ends[-2]
    assert len(killed.done) < total == len(last.done)
    assert last.status == 0
    assert f"Done: {total - len(killed.done)} stages computed, {len(killed.done)} reused." in last.out


def test_it_ends_with_the_table_of_the_undisturbed_grid(story: Story, undisturbed: Path) -> None:
    # Without the models below it, which were timed.
    ours, theirs = (table(str(place), "killed").partition("#### Models")[0] for place in (story.storage, undisturbed))
    assert ours == theirs


def test_it_ends_with_the_weights_of_the_undisturbed_grid(story: Story, undisturbed: Path, plan: Plan) -> None:
    ours, theirs = weights_of(story.storage), weights_of(undisturbed)
    assert len(ours) == len(theirs) == len(plan.teachers) + len(plan.cells)
    assert [name for name in theirs if theirs[name] != ours[name]] == []


@pytest.mark.slow
@pytest.mark.parametrize("story", ["every way"], indirect=True)
def test_no_process_outlives_a_launch_that_left_at_once(story: Story) -> None:
    """Ray's agents do, by a minute at most."""
    assert story.launches["SIGTERM twice"].left_over() == []
