"""A lane of teachers: its workers take the stages in turn, agree with each other, and fail one by one. No Ray runs
here: what stands for it is put in its place."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train
import ray.train.torch
import torch

import grid.cluster.nodes.departure
import grid.cluster.teachers.groups
from grid.cluster.nodes.capacity import Capacity
from grid.cluster.retries import TRIES
from grid.cluster.teachers.group_worker import DepartureError, train_in_turn
from grid.cluster.teachers.groups import run_in_turn
from grid.cluster.teachers.lanes import Lanes
from grid.contract.files.layout import RECORD
from grid.plan import Plan, Stage, TeacherStage, stage_from_json, stage_to_json
from grid.plan.schedule import Schedule, StageState
from grid.spec.resources import Resources
from grid.store.lease import Leases
from grid.store.records import record_to_json
from grid.store.store import CHECKPOINT, Store
from grid.work.dataset import prepare_dataset
from grid.work.execute import Runtime, execute
from tests.conftest import tiny_grid
from tests.grid.running import Killed, dying, train, weights_bytes
from tests.launching import signature

Planner = Callable[..., Plan]

LAUNCH = "launch-1"
BROKEN_T = {
    **tiny_grid()["teachers"][0],
    "label": "Broken-T",
    "recipe": {"optimizer": "sgd", "learning_rate": 1e30, "schedule": "constant"},
}
TEACHERS = [BROKEN_T, tiny_grid()["teachers"][0]]


def prepared(plan: Plan, folder: Path) -> Store:
    store = Store(str(folder))
    runtime = Runtime(launch=LAUNCH).here(threads=1, device="cpu")
    assert execute(plan.data, store, runtime, lambda: prepare_dataset(plan.data, store, runtime)) is None
    return store


def config_of(stages: Sequence[Stage], store: Store, *, launch: str = LAUNCH) -> dict[str, Any]:
    return {
        "stages": [stage_to_json(stage) for stage in stages],
        "storage": store.url,
        "threads": 1,
        "runtime": asdict(Runtime(launch=launch)),
    }


class Place:
    """What Ray Train tells a worker of itself."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world

    def get_world_rank(self) -> int:
        return self.rank

    def get_world_size(self) -> int:
        return self.world

    def get_node_id(self) -> str:
        return f"node-{self.rank}"


def as_worker(patch: pytest.MonkeyPatch, *, rank: int, world: int) -> None:
    wrap = torch.nn.parallel.DistributedDataParallel if world > 1 else lambda model: model
    patch.setattr(ray.train, "get_context", lambda: Place(rank, world))
    patch.setattr(ray, "get_runtime_context", lambda: Place(rank, world))
    patch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    patch.setattr(ray.train.torch, "prepare_model", wrap)


def test_a_teacher_that_fails_takes_nothing_along(
    tmp_path: Path, tiny_plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(teachers=TEACHERS, seeds=[0])
    store, (broken, good) = prepared(plan, tmp_path), plan.teachers
    as_worker(monkeypatch, rank=0, world=1)
    train_in_turn(config_of(plan.teachers, store))
    failure = store.failure(broken, launch=LAUNCH)
    assert failure is not None
    assert str(failure.error).startswith("DivergedError")
    assert store.is_done(good)
    assert store.record(good).workers == 1

    # A group that is started again finds what it had done, and what had failed.
    before, said = signature(tmp_path), store.read(f"{broken.folder}/failure.json")
    train_in_turn(config_of(plan.teachers, store))
    assert signature(tmp_path) == before
    assert store.read(f"{broken.folder}/failure.json") == said


def test_a_teacher_whose_workers_die_too_often_is_given_up(
    tmp_path: Path, tiny_plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time the lease is left behind: it counts."""
    plan = tiny_plan(seeds=[0])
    (store, (teacher,)), leases = (prepared(plan, tmp_path), plan.teachers), Leases(Store(str(tmp_path)), LAUNCH)
    as_worker(monkeypatch, rank=0, world=1)
    for tries in range(1, TRIES + 1):
        lost = leases.take(teacher.folder)
        assert lost is not None
        assert lost.holder.tries == tries
        lost.lost = True  # it renews nothing any more
    train_in_turn(config_of([teacher], store))
    failure = store.failure(teacher, launch=LAUNCH)
    assert failure is not None
    assert str(failure.error).startswith("its workers died too often")
    assert not store.is_done(teacher)
    # Another launch begins to count anew.
    train_in_turn(config_of([teacher], store, launch="launch-2"))
    assert store.record(teacher).tries == 1


def test_a_lane_saves_and_leaves_a_machine_that_is_about_to_go(
    tmp_path: Path, tiny_plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(seeds=[0], recipe={**tiny_grid()["recipe"], "epochs": 4})
    store, (teacher,) = prepared(plan, tmp_path), plan.teachers
    as_worker(monkeypatch, rank=0, world=1)
    looks = iter([set(), {"another"}, {"another"}])
    monkeypatch.setattr(grid.cluster.nodes.departure, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(grid.cluster.nodes.departure, "draining_nodes", lambda: next(looks, {"node-0"}))
    with pytest.raises(DepartureError):
        train_in_turn(config_of([teacher], store))
    assert not store.is_done(teacher)
    assert store.failure(teacher, launch=LAUNCH) is None, "it has not failed"
    assert set(store.names(teacher.folder)) >= {CHECKPOINT}
    assert not [name for name in store.names(teacher.folder) if name.startswith("lease")], "another one may go on"
    monkeypatch.setattr(grid.cluster.nodes.departure, "draining_nodes", set)
    train_in_turn(config_of([teacher], store))
    assert store.record(teacher).tries == 1, "nobody was lost"


def _looks_late() -> Callable[[Store, Stage], bool]:
    """Store.is_done of a worker that looks at a teacher when another has trained it."""
    is_done, looked = Store.is_done, set()

    def late(store: Store, stage: Stage) -> bool:
        until = time.monotonic() + 10
        while stage.kind == "teacher" and stage.id not in looked and time.monotonic() < until:
            if is_done(store, stage):
                break
            time.sleep(0.01)
        looked.add(stage.id)
        return is_done(store, stage)

    return late


def _finds_no_checkpoint() -> Callable[[Store, str], bytes]:
    """Store.read of a worker that comes when another launch has just removed a checkpoint."""
    read = Store.read

    def none(store: Store, path: str) -> bytes:
        if path.endswith(CHECKPOINT):
            raise FileNotFoundError(path)
        return read(store, path)

    return none


def _one_of_two(rank: int, config: dict[str, Any], meeting_place: str, second_is: str) -> None:
    """Runs in a process of its own."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=meeting_place, rank=rank, world_size=2, timeout=timedelta(seconds=30)
    )
    with pytest.MonkeyPatch.context() as patch:
        as_worker(patch, rank=rank, world=2)
        if rank == 1 and second_is == "late":
            patch.setattr(Store, "is_done", _looks_late())
        if rank == 1 and second_is == "without checkpoint":
            patch.setattr(Store, "read", _finds_no_checkpoint())
        train_in_turn(config)
    torch.distributed.destroy_process_group()


def two_workers(stages: Sequence[Stage], store: Store, folder: Path, *, second_is: str = "in step") -> list[int | None]:
    """Their exit codes."""
    context = multiprocessing.get_context("spawn")
    common = (config_of(stages, store), f"file://{folder}/meeting-place", second_is)
    workers = [context.Process(target=_one_of_two, args=(rank, *common)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        worker.kill()
    return [worker.exitcode for worker in workers]


@pytest.mark.long
@pytest.mark.parametrize("second_is", ["in step", "late"])
def test_two_workers_go_through_a_lane_together(tmp_path: Path, two_teachers: Plan, second_is: str) -> None:
    """Both return: neither waits for the other in a stage that the other has found to be done."""
    plan = two_teachers
    store = prepared(plan, tmp_path / "runs")
    assert two_workers(plan.teachers, store, tmp_path, second_is=second_is) == [0, 0]
    assert all(store.is_done(teacher) for teacher in plan.teachers)
    assert store.record(plan.teachers[0]).workers == 2


@pytest.mark.long
def test_two_workers_go_on_from_the_same_checkpoint(tmp_path: Path, tiny_plan: Planner) -> None:
    """What is published has not been learned by one from the first epoch and by the other from the second, though
    another launch may replace or remove the checkpoint while they look for it."""
    plan = tiny_plan(seeds=[0])
    (teacher,), runtime = plan.teachers, Runtime(launch="launch-0").here(threads=1, device="cpu")
    seen = {}
    for second_is in ("in step", "without checkpoint"):
        folder = tmp_path / second_is
        store = prepared(plan, folder / "runs")
        with pytest.raises(Killed):
            train(teacher, dying(store, after=1), runtime)
        two_workers([teacher], store, folder, second_is=second_is)
        seen[second_is] = weights_bytes(store, teacher) if store.is_done(teacher) else None
    assert seen["in step"] is not None
    assert seen["without checkpoint"] in (seen["in step"], None)


class Group:
    """Stands for Ray's TorchTrainer: one worker, in a thread, that dies of the stages in `deadly`."""

    made: list[list[str]]
    deadly: set[str]
    losing: dict[str, BaseException]
    starts_after: float
    dies_after: float
    ended: threading.Event

    def __init__(self, loop: Callable[..., None], *, train_loop_config: dict[str, Any], **settings: Any) -> None:
        self.config = train_loop_config
        self.stages = [stage_from_json(text) for text in train_loop_config["stages"]]
        Group.made.append([stage.id for stage in self.stages])

    def fit(self) -> None:
        store, runtime = Store(self.config["storage"]), Runtime(launch=LAUNCH)
        time.sleep(Group.starts_after)
        for stage in self.stages:
            if stage.id in Group.deadly:
                time.sleep(Group.dies_after)
                raise RuntimeError("worker died")
            if stage.id in Group.losing:
                raise Group.losing.pop(stage.id)
            if store.is_done(stage):
                continue
            assert isinstance(stage, TeacherStage)
            train(stage, store, runtime)
        Group.ended.set()


class Nobody:
    def on_change(self, stage: Stage, state: StageState, error: str | None) -> None:
        pass


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> type[Group]:
    Group.made, Group.deadly, Group.losing, Group.ended = [], set(), {}, threading.Event()
    Group.starts_after, Group.dies_after = 0.0, 0.3
    monkeypatch.setattr(grid.cluster.teachers.groups, "TorchTrainer", Group)
    return Group


class Ledger:
    """Tells the schedule, as a launch does."""

    def __init__(self, schedule: Schedule, told: Callable[[Stage], None]) -> None:
        self.schedule, self.told = schedule, told

    def start(self, stage: Stage) -> bool:
        return self.schedule.start(stage)

    def give_back(self, stage: Stage) -> None:
        raise AssertionError("a group keeps what it has begun")

    def finish(self, stage: Stage, error: str | None) -> None:
        assert self.schedule.state(stage) == "running", "told once"
        self.schedule.finish(stage, error)
        self.told(stage)

    def say(self, stage: Stage, text: str) -> None:
        raise AssertionError(text)


def scheduled(plan: Plan, store: Store) -> Schedule:
    costs = {stage.id: float(i) for i, stage in enumerate(plan.stages)}
    done = {stage.id for stage in plan.stages if store.is_done(stage)}
    return Schedule(plan, done=done, costs=costs, observer=Nobody())


CAPACITY = Capacity.of([{"CPU": 2.0}], Resources())


def drive(plan: Plan, store: Store, *, told: Callable[[Stage], None]) -> Schedule:
    """Run the plan's teachers as one lane, as a launch does."""
    schedule = scheduled(plan, store)
    (stages,) = schedule.deal(1)
    runtime, ledger = Runtime(launch=LAUNCH), Ledger(schedule, told)
    run_in_turn(stages, store, CAPACITY, scratch="", runtime=runtime, ledger=ledger)
    return schedule


@pytest.fixture
def two_teachers(tiny_plan: Planner) -> Plan:
    second = {**tiny_grid()["teachers"][0], "label": "Second-T", "seed": 1}
    return tiny_plan(teachers=[tiny_grid()["teachers"][0], second], seeds=[0])


def test_workers_that_die_for_good_fail_their_stage_and_others_do_the_rest(
    tmp_path: Path, two_teachers: Plan, group: type[Group]
) -> None:
    store, plan, (first, other) = prepared(two_teachers, tmp_path), two_teachers, two_teachers.teachers
    group.deadly = {first.id}
    schedule = drive(plan, store, told=lambda stage: None)
    assert schedule.state(first) == "failed"
    assert "worker died" in schedule.errors[first.id]
    assert schedule.state(plan.logits[0]) == "blocked"
    assert schedule.state(other) == "done"


@pytest.mark.parametrize("end", [ray.exceptions.ActorDiedError(), ray.exceptions.OutOfMemoryError("5 killed\n[...]")])
def test_the_loss_of_a_groups_controller_fails_nothing(
    tmp_path: Path, two_teachers: Plan, group: type[Group], end: Exception
) -> None:
    store, plan = prepared(two_teachers, tmp_path), two_teachers
    group.losing = {plan.teachers[0].id: end}
    schedule = drive(plan, store, told=lambda stage: None)
    assert {schedule.state(teacher) for teacher in plan.teachers} == {"done"}
    assert group.made == [[teacher.id for teacher in plan.teachers]] * 2


def test_the_next_workers_are_given_what_is_left(tmp_path: Path, two_teachers: Plan, group: type[Group]) -> None:
    store, plan, (first, other) = prepared(two_teachers, tmp_path), two_teachers, two_teachers.teachers
    group.deadly = {first.id}
    drive(plan, store, told=lambda stage: None)
    assert group.made == [[first.id, other.id], [other.id]]


def test_workers_that_cannot_be_started_are_not_started_over_and_over(
    tmp_path: Path, two_teachers: Plan, group: type[Group]
) -> None:
    """A Ray that is gone says so at once: each stage fails with that, and none is tried twice."""
    store, plan = prepared(two_teachers, tmp_path), two_teachers
    group.deadly, group.dies_after = {teacher.id for teacher in plan.teachers}, 0.0
    schedule = drive(plan, store, told=lambda stage: None)
    assert [schedule.state(teacher) for teacher in plan.teachers] == ["failed", "failed"]
    assert len(group.made) <= 2


def test_what_a_group_has_done_is_told_without_another_group(
    tmp_path: Path, two_teachers: Plan, group: type[Group]
) -> None:
    """Though it has long ended when the launch has told of the first stage."""
    plan = two_teachers
    store = prepared(plan, tmp_path)

    def slowly(stage: Stage) -> None:
        if stage == plan.teachers[0]:
            assert group.ended.wait(60)
            time.sleep(0.2)  # its thread ends just after

    schedule = drive(plan, store, told=slowly)
    assert [schedule.state(teacher) for teacher in plan.teachers] == ["done", "done"]
    assert group.made == [[teacher.id for teacher in plan.teachers]]


def test_a_lane_of_its_own_for_what_becomes_ready_later(tmp_path: Path, two_teachers: Plan, group: type[Group]) -> None:
    """The second is held back until the first is trained; no lane that was there at the start has it."""
    store, plan, (first, second) = prepared(two_teachers, tmp_path), two_teachers, two_teachers.teachers
    schedule = scheduled(plan, store)
    assert schedule.start(second)
    lanes: Lanes

    def told(stage: Stage) -> None:
        if stage == first:
            schedule.give_back(second)
        lanes.deal()

    runtime = Runtime(launch=LAUNCH)
    lanes = Lanes(schedule, store, CAPACITY, scratch="", runtime=runtime, ledger=Ledger(schedule, told))
    lanes.deal()
    lanes.join()
    assert [schedule.state(teacher) for teacher in plan.teachers] == ["done", "done"]
    assert group.made == [[first.id], [second.id]]
    assert (lanes.busy, lanes.are_alive) == (0, False)


def test_a_lane_that_cannot_begin_says_so_of_each_of_its_stages(
    tmp_path: Path, two_teachers: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **settings: Any) -> None:
        raise ValueError("no such resource")

    monkeypatch.setattr(grid.cluster.teachers.groups, "TorchTrainer", broken)
    store, plan = prepared(two_teachers, tmp_path), two_teachers
    schedule = scheduled(plan, store)
    ledger = Ledger(schedule, lambda stage: None)
    monkeypatch.setattr(ledger, "finish", schedule.finish)  # of what waits, too
    lanes = Lanes(schedule, store, CAPACITY, scratch="", runtime=Runtime(launch=LAUNCH), ledger=ledger)
    lanes.deal()
    lanes.join()
    assert {schedule.errors[teacher.id] for teacher in plan.teachers} == {"ValueError: no such resource"}


def test_a_teacher_of_other_images_is_not_warned_of_at_every_look(
    tmp_path: Path, tiny_plan: Planner, group: type[Group], caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, before anything runs, though the launch looks several times a second afterwards."""
    plan = tiny_plan(seeds=[0])
    store, (teacher,) = prepared(plan, tmp_path), plan.teachers
    assert train(teacher, store, Runtime(launch="launch-0").here(threads=1, device="cpu")) is None
    of_others = replace(store.record(teacher), inputs=json.dumps({plan.data.id: "0" * 64}))
    store.write(f"{teacher.folder}/{RECORD}", record_to_json(of_others))
    group.starts_after = 1.0
    schedule = drive(plan, store, told=lambda stage: None)
    assert schedule.state(teacher) == "done"
    assert store.record(teacher).launch == LAUNCH
    assert [r.getMessage() for r in caplog.records if "other images" in r.getMessage()] == []
