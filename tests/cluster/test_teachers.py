"""A lane of teachers: its workers take the stages in turn, agree with each other, and fail one by one. No Ray runs
here: what stands for it is put in its place."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train
import ray.train.torch
import torch

import grid.cluster.nodes.departure
import grid.cluster.teachers.group_worker
import grid.cluster.teachers.groups
from grid.cluster.nodes.capacity import MAX_WORKER_DEATHS, Capacity
from grid.cluster.teachers.group_worker import DepartureError
from grid.cluster.teachers.groups import run_lane
from grid.plan import LogitsStage, Plan, Stage, TeacherStage, stage_from_json, stage_to_json
from grid.plan.schedule import Schedule, State
from grid.spec.resources import Resources
from grid.store.lease import Leases
from grid.store.store import CHECKPOINT, Store
from grid.work.execute import Runtime, execute, prepare_dataset
from tests.conftest import tiny_grid
from tests.grid.running import Killed, compute, dying, retrain, train, weights_bytes
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
    runtime = Runtime.here(threads=1, device="cpu", launch=LAUNCH)
    assert execute(plan.data, store, runtime, lambda: prepare_dataset(plan.data, store, runtime)) is None
    return store


def lane_of(plan: Plan) -> list[Stage]:
    lane: list[Stage] = []
    for teacher in plan.teachers:
        lane += [teacher, *(stage for stage in plan.logits if stage.teacher.id == teacher.id)]
    return lane


def config_of(stages: list[Stage], store: Store) -> dict[str, Any]:
    return {
        "stages": [stage_to_json(stage) for stage in stages],
        "storage": store.url,
        "threads": 1,
        "run": {"launch": LAUNCH},
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


def test_a_teacher_that_fails_takes_its_logits_along_and_nothing_else(
    tmp_path: Path, tiny_plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(teachers=TEACHERS, seeds=[0])
    store, (broken, good) = prepared(plan, tmp_path), plan.teachers
    as_worker(monkeypatch, rank=0, world=1)
    grid.cluster.teachers.groups.group_worker.train_lane(config_of(lane_of(plan), store))
    failure = store.failure(broken, launch=LAUNCH)
    assert failure is not None
    assert str(failure.error).startswith("DivergedError")
    assert not store.names(plan.logits[0].folder), "nobody tried"
    assert store.is_done(good)
    assert store.is_done(plan.logits[1])
    assert store.record(good).workers == 1

    # A group that is started again finds what it had done, and what had failed.
    before, said = signature(tmp_path), store.read(f"{broken.folder}/failure.json")
    grid.cluster.teachers.groups.group_worker.train_lane(config_of(lane_of(plan), store))
    assert signature(tmp_path) == before
    assert store.read(f"{broken.folder}/failure.json") == said
    assert not store.names(plan.logits[0].folder)


def test_a_teacher_whose_workers_die_too_often_is_given_up(
    tmp_path: Path, tiny_plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time the lease is left behind: it counts."""
    plan = tiny_plan(seeds=[0])
    (store, (teacher,)), leases = (prepared(plan, tmp_path), plan.teachers), Leases(Store(str(tmp_path)), LAUNCH)
    as_worker(monkeypatch, rank=0, world=1)
    for tries in range(1, MAX_WORKER_DEATHS + 2):
        lost = leases.take(teacher.folder)
        assert lost is not None
        assert lost.holder.tries == tries
        lost.lost = True  # it renews nothing any more
    grid.cluster.teachers.groups.group_worker.train_lane(config_of([teacher], store))
    failure = store.failure(teacher, launch=LAUNCH)
    assert failure is not None
    assert str(failure.error).startswith("its workers died too often")
    assert not store.is_done(teacher)
    # Another launch begins to count anew.
    grid.cluster.teachers.groups.group_worker.train_lane(config_of([teacher], store) | {"run": {"launch": "launch-2"}})
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
        grid.cluster.teachers.groups.group_worker.train_lane(config_of([teacher], store))
    assert not store.is_done(teacher)
    assert store.failure(teacher, launch=LAUNCH) is None, "it has not failed"
    assert set(store.names(teacher.folder)) >= {CHECKPOINT}
    assert not [name for name in store.names(teacher.folder) if name.startswith("lease")], "another one may go on"
    monkeypatch.setattr(grid.cluster.nodes.departure, "draining_nodes", set)
    grid.cluster.teachers.groups.group_worker.train_lane(config_of([teacher], store))
    assert store.record(teacher).tries == 1, "nobody was lost"


def _looks_late() -> Callable[[Store, Stage], bool]:
    """Store.is_done of a worker that looks at logits when another has made them."""
    is_done, looked = Store.is_done, set()

    def late(store: Store, stage: Stage) -> bool:
        until = time.monotonic() + 10
        while stage.kind == "logits" and stage.id not in looked and time.monotonic() < until:
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
        grid.cluster.teachers.groups.group_worker.train_lane(config)
    torch.distributed.destroy_process_group()


def two_workers(stages: list[Stage], store: Store, folder: Path, *, second_is: str = "in step") -> list[int | None]:
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
def test_two_workers_go_through_a_lane_together(tmp_path: Path, tiny_plan: Planner, second_is: str) -> None:
    """Both return: neither waits for the other in a stage that the other has found to be done."""
    plan = tiny_plan(seeds=[0])
    store = prepared(plan, tmp_path / "runs")
    assert two_workers(lane_of(plan), store, tmp_path, second_is=second_is) == [0, 0]
    assert all(store.is_done(stage) for stage in lane_of(plan))
    assert store.record(plan.teachers[0]).workers == 2


@pytest.mark.long
def test_two_workers_go_on_from_the_same_checkpoint(tmp_path: Path, tiny_plan: Planner) -> None:
    """What is published has not been learned by one from the first epoch and by the other from the second, though
    another launch may replace or remove the checkpoint while they look for it."""
    plan = tiny_plan(seeds=[0])
    (teacher,), runtime = plan.teachers, Runtime.here(threads=1, device="cpu", launch="launch-0")
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
            if isinstance(stage, TeacherStage):
                train(stage, store, runtime)
            elif isinstance(stage, LogitsStage):
                compute(stage, store, runtime)
        Group.ended.set()


class Nobody:
    def on_change(self, stage: Stage, state: State, error: str | None) -> None:
        pass


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> type[Group]:
    Group.made, Group.deadly, Group.losing, Group.ended = [], set(), {}, threading.Event()
    Group.starts_after, Group.dies_after = 0.0, 0.3
    monkeypatch.setattr(grid.cluster.teachers.groups, "TorchTrainer", Group)
    monkeypatch.setattr(ray, "available_resources", dict)
    monkeypatch.setattr(ray, "get", lambda helpers: helpers)
    return Group


def drive(plan: Plan, store: Store, *, told: Callable[[Stage], None]) -> Schedule:
    """Run the plan's teachers as one lane, as a launch does."""
    costs = {stage.id: float(i) for i, stage in enumerate(plan.stages)}
    done = {stage.id for stage in plan.stages if store.is_done(stage)}
    schedule = Schedule(plan, done=done, costs=costs, observer=Nobody())

    def start(stage: Stage) -> bool:
        wanted = schedule.state(stage) == "waiting"
        if wanted:
            schedule.start(stage)
        return wanted

    def finish(stage: Stage, error: str | None) -> None:
        assert schedule.state(stage) == "running", "told once"
        schedule.finish(stage, error)
        told(stage)

    (jobs,) = schedule.lanes(1)
    capacity = Capacity.of([{"CPU": 2.0}], Resources())
    run_lane(jobs, store, capacity, scratch="", run={"launch": LAUNCH}, start=start, finish=finish)
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
    assert schedule.state(other) == schedule.state(plan.logits[1]) == "done"


@pytest.mark.parametrize("end", [ray.exceptions.ActorDiedError(), ray.exceptions.OutOfMemoryError("5 killed\n[...]")])
def test_the_loss_of_a_groups_controller_fails_nothing(
    tmp_path: Path, two_teachers: Plan, group: type[Group], end: Exception
) -> None:
    store, plan = prepared(two_teachers, tmp_path), two_teachers
    group.losing = {plan.teachers[0].id: end}
    schedule = drive(plan, store, told=lambda stage: None)
    assert {schedule.state(stage) for stage in lane_of(plan)} == {"done"}
    assert group.made == [[stage.id for stage in lane_of(plan)]] * 2


def test_the_next_workers_are_not_given_what_the_failure_has_blocked(
    tmp_path: Path, two_teachers: Plan, group: type[Group]
) -> None:
    """It would fail for want of its teacher, and say so as if that were the reason."""
    store, plan, (first, other) = prepared(two_teachers, tmp_path), two_teachers, two_teachers.teachers
    group.deadly = {first.id}
    drive(plan, store, told=lambda stage: None)
    assert group.made[1] == [other.id, plan.logits[1].id]
    assert store.failure(plan.logits[0], launch=LAUNCH) is None


def test_workers_that_cannot_be_started_are_not_started_over_and_over(
    tmp_path: Path, two_teachers: Plan, group: type[Group]
) -> None:
    """A Ray that is gone says so at once: each stage fails with that, and none is tried twice."""
    store, plan = prepared(two_teachers, tmp_path), two_teachers
    group.deadly, group.dies_after = {stage.id for stage in lane_of(plan)}, 0.0
    schedule = drive(plan, store, told=lambda stage: None)
    assert [schedule.state(teacher) for teacher in plan.teachers] == ["failed", "failed"]
    assert len(group.made) <= 2


def test_what_a_group_has_done_is_told_without_another_group(
    tmp_path: Path, tiny_plan: Planner, group: type[Group]
) -> None:
    """Though it has long ended when the launch has told of the first stage."""
    plan = tiny_plan(seeds=[0])
    store = prepared(plan, tmp_path)

    def slowly(stage: Stage) -> None:
        if stage.kind == "teacher":
            assert group.ended.wait(60)
            time.sleep(0.2)  # its thread ends just after

    schedule = drive(plan, store, told=slowly)
    assert [schedule.state(stage) for stage in lane_of(plan)] == ["done", "done"]
    assert group.made == [[stage.id for stage in lane_of(plan)]]


def test_logits_of_another_training_are_not_warned_of_at_every_look(
    tmp_path: Path, tiny_plan: Planner, group: type[Group], caplog: pytest.LogCaptureFixture
) -> None:
    """They are said once, before anything runs, though the launch looks several times a second afterwards."""
    plan = tiny_plan(seeds=[0])
    store, (teacher,), (logits,) = prepared(plan, tmp_path), plan.teachers, plan.logits
    runtime = Runtime.here(threads=1, device="cpu", launch="launch-0")
    assert train(teacher, store, runtime) is None
    assert compute(logits, store, runtime) is None
    retrain(teacher, store)
    group.starts_after = 1.0
    schedule = drive(plan, store, told=lambda stage: None)
    assert schedule.state(logits) == "done"
    assert [r.getMessage() for r in caplog.records if "another training" in r.getMessage()] == []
