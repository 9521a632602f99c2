"""What the pool hands out, to how many workers, and what it tells of them. No Ray runs here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from grid.cluster.nodes.capacity import Capacity
from grid.cluster.nodes.fleet import Fleet
from grid.cluster.nodes.packing import Packing
from grid.cluster.pool.search import Pool, Searcher, _Search
from grid.cluster.retries import TRIES
from grid.cluster.teachers.lanes import Lanes
from grid.plan import Plan, Stage, stage_from_json
from grid.plan.schedule import Schedule, StageState
from grid.spec.grid import Resources
from grid.store.store import Store
from grid.work.execute import Runtime
from tests.conftest import tiny_grid

Planner = Callable[..., Plan]


class Nodes:
    """In place of Ray's."""

    def __init__(self, *, cpus: float, **wanted: Any) -> None:
        self.cluster = Capacity.of([{"CPU": cpus}], Resources(**wanted))
        self.busy = 0

    def capacity(self) -> Capacity:
        return self.cluster


class Book:
    """Tells the schedule, as a launch does, and keeps what it was told."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.said: list[str] = []
        self.ended: list[tuple[str, str | None]] = []

    def start(self, stage: Stage) -> bool:
        return self.schedule.start(stage)

    def give_back(self, stage: Stage) -> None:
        self.schedule.give_back(stage)

    def finish(self, stage: Stage, error: str | None) -> None:
        self.ended.append((stage.id, error))
        self.schedule.finish(stage, error)

    def say(self, stage: Stage, text: str) -> None:
        self.said.append(text)


class Nobody:
    def on_change(self, stage: Stage, state: StageState, error: str | None) -> None:
        pass


class Trials:
    """The search with trials that a test ends."""

    def __init__(self, plan: Plan, folder: Path, *, done: set[str], cpus: float, **wanted: Any) -> None:
        store, nodes = Store(str(folder)), Nodes(cpus=cpus, **wanted)
        self.schedule = Schedule(plan, done=done, costs={}, observer=Nobody())
        self.book, self.killed = Book(self.schedule), dict[str, str]()
        pool = Pool(
            self.schedule,
            store,
            cast("Fleet", nodes),
            Packing(plan, store, self.schedule, nodes.capacity),
            cast("Lanes", nodes),
            ledger=self.book,
            runtime=Runtime(launch="launch-1"),
        )
        self.search = _Search(pool, make_room=lambda: None, killed=lambda trial: self.killed.pop(trial, None))
        self.trials = 0

    def next(self) -> tuple[str, dict[str, Any]] | None:
        """Another trial, with what it is given; None where it is given nothing now."""
        trial = f"trial-{self.trials}"
        given = self.search.suggest(trial)
        if given is None:
            return None
        self.trials += 1
        return trial, given

    def all(self) -> list[tuple[str, dict[str, Any]]]:
        found = []
        while (one := self.next()) is not None:
            found.append(one)
        return found


@pytest.fixture
def trained(tiny_plan: Planner) -> tuple[Plan, set[str]]:
    """A grid without baselines whose teacher is trained: only its logits are ready."""
    plan = tiny_plan(modes=["distilled"], recipe={**tiny_grid()["recipe"], "epochs": 4})
    return plan, {plan.data.id, *(teacher.id for teacher in plan.teachers)}


def test_a_teachers_logits_are_handed_out_with_the_share_of_a_teachers_worker(
    tmp_path: Path, trained: tuple[Plan, set[str]]
) -> None:
    plan, done = trained
    pool = Trials(plan, tmp_path, done=done, cpus=4, cpus_per_teacher_worker=3, cpus_per_cell=1)
    ((_, given),) = pool.all()
    assert stage_from_json(given["stage"]) == plan.logits[0]
    assert (given["part"], given["parts"], given["threads"], given["share"]) == (0, 1, 3, {"CPU": 3})


def test_workers_that_have_nothing_else_to_do_help_with_logits(tmp_path: Path, trained: tuple[Plan, set[str]]) -> None:
    plan, done = trained
    (logits,) = plan.logits
    assert logits.parts == 4  # epochs
    pool = Trials(plan, tmp_path, done=done, cpus=3)
    assert [(g["part"], g["parts"]) for _, g in pool.all()] == [(0, 3), (1, 3), (2, 3)]
    assert pool.schedule.running() == [logits]

    more = Trials(plan, tmp_path, done=done, cpus=9)
    assert [g["part"] for _, g in more.all()] == [0, 1, 2, 3], "as many as there are files"
    assert not more.book.ended


def test_what_is_ready_comes_before_help(tmp_path: Path, tiny_plan: Planner) -> None:
    plan = tiny_plan()
    pool = Trials(plan, tmp_path, done={plan.data.id, plan.teachers[0].id}, cpus=3)
    kinds = [(stage_from_json(given["stage"]).kind, given["part"]) for _, given in pool.all()]
    assert kinds == [("logits", 0), ("cell", 0), ("cell", 0)]


def test_who_helps_is_not_told_of(tmp_path: Path, trained: tuple[Plan, set[str]]) -> None:
    """Neither that it has ended, nor that its worker was lost or killed: the others do what it leaves."""
    plan, done = trained
    pool = Trials(plan, tmp_path, done=done, cpus=3)
    (first, _), (second, _), (third, _) = pool.all()
    pool.search.on_trial_recover(second, 1)
    pool.search.on_trial_complete(second, {"error": ""})
    pool.killed[third] = "no memory"
    pool.search.on_trial_complete(third, error=True)
    assert (pool.book.said, pool.book.ended, pool.killed) == ([], [], {})
    pool.search.on_trial_complete(first, {"error": ""})
    assert pool.book.ended == [(plan.logits[0].id, None)]
    assert {stage_from_json(given["stage"]).kind for _, given in pool.all()} == {"cell"}


def test_a_stage_that_another_launch_holds_waits_its_turn(tmp_path: Path, trained: tuple[Plan, set[str]]) -> None:
    plan, done = trained
    pool = Trials(plan, tmp_path, done=done, cpus=1)
    ((trial, _),) = pool.all()
    pool.search.on_trial_complete(trial, {"error": "", "gave_way": True})
    assert pool.schedule.state(plan.logits[0]) == "waiting"
    assert pool.search.has_company
    assert not pool.book.ended


def test_logits_whose_worker_finds_no_memory_get_the_place_of_more_cpus_and_are_given_up_in_the_end(
    tmp_path: Path, trained: tuple[Plan, set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grid.cluster.retries.REST_SECONDS", 0.0)
    plan, done = trained
    pool = Trials(plan, tmp_path, done=done, cpus=2)
    shares = []
    for _ in range(TRIES + 1):
        (trial, given), *helpers = pool.all()
        shares.append(given["share"])
        for helper, _ in helpers:
            pool.search.on_trial_complete(helper, {"error": ""})
        pool.killed[trial] = "the node has no memory"
        pool.search.on_trial_complete(trial, error=True)
    assert shares == [{"CPU": 1}, *[{"CPU": 2}] * TRIES]
    assert pool.book.said[0] == (
        "its worker was ended, for its node ran out of memory; it goes on from its checkpoint with fewer beside it, in "
        "the place of 2 CPUs"
    )
    assert pool.schedule.state(plan.logits[0]) == "failed"
    assert pool.search.suggest("last") == Searcher.FINISHED, "its cells are blocked"
