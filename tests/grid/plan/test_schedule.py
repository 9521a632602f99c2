"""Baselines at once, distilled cells when their own teacher is ready, and nothing after what failed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from grid.plan import CellStage, Plan, Stage
from grid.plan.schedule import Schedule, State, TeacherJob, unneeded_logits
from tests.conftest import VIT, tiny_grid

Planner = Callable[..., Plan]


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[str, State, str | None]] = []

    def on_change(self, stage: Stage, state: State, error: str | None) -> None:
        self.seen.append((stage.id, state, error))


TEACHERS = [*tiny_grid()["teachers"], {"label": "ViT-T", "name": "vit_tiny_patch16_224", "args": VIT}]


@pytest.fixture
def plan(tiny_plan: Planner) -> Plan:
    return tiny_plan(teachers=TEACHERS)


def schedule(plan: Plan, done: set[str] | None = None, costs: dict[str, float] | None = None) -> Schedule:
    done = {plan.data.id} if done is None else done
    return Schedule(plan, done=done | unneeded_logits(plan, done), costs=costs or {}, observer=Recorder())


def drain(schedule: Schedule) -> list[CellStage]:
    cells = []
    while (cell := schedule.next_cell()) is not None:
        schedule.start(cell)
        cells.append(cell)
    return cells


def test_baselines_start_at_once_and_distilled_cells_wait_for_their_own_teacher(plan: Plan) -> None:
    run = schedule(plan)
    assert {cell.mode for cell in drain(run)} == {"baseline"}
    first, second = plan.teachers
    of_first: list[Stage] = [first, *(s for s in plan.logits if s.teacher.id == first.id)]
    for stage in of_first:
        run.start(stage)
        run.finish(stage)
    ready = drain(run)
    assert {cell.logits.teacher.id for cell in ready if cell.logits} == {first.id}
    assert len(ready) == 4
    assert run.cells_left()
    run.start(second)
    run.finish(second)
    assert drain(run) == []  # its logits are not there yet


def test_online_cells_wait_for_their_teacher_alone(tiny_plan: Planner) -> None:
    run = schedule(online := tiny_plan(teachers=TEACHERS, targets="online"))
    assert {cell.mode for cell in drain(run)} == {"baseline"}
    first, second = online.teachers
    run.start(first)
    assert drain(run) == []
    run.finish(first)
    ready = drain(run)
    assert [cell.teacher for cell in ready] == [first] * 4
    assert [job.stages for job in run.teacher_jobs()] == [(second,)]


def test_the_most_expensive_cell_starts_first(plan: Plan) -> None:
    costs = {cell.id: float(i) for i, cell in enumerate(plan.cells)}
    handed = drain(schedule(plan, costs=costs))
    assert [costs[cell.id] for cell in handed] == sorted((costs[cell.id] for cell in handed), reverse=True)


def test_a_failed_teacher_blocks_its_own_cells_only(plan: Plan) -> None:
    run = schedule(plan)
    first, second = plan.teachers
    run.start(first)
    run.finish(first, "it broke")
    states = run.states()
    blocked = {stage.id for stage in plan.stages if states[stage.id] == "blocked"}
    of_first = {s.id for s in plan.logits if s.teacher.id == first.id}
    of_first |= {c.id for c in plan.cells if c.logits is not None and c.logits.teacher.id == first.id}
    assert blocked == of_first
    assert run.errors[first.id] == "it broke"
    assert all(f"{first.kind} {first.id} failed" in run.errors[s.id] for s in plan.logits if s.teacher.id == first.id)
    assert [job.teacher.id for job in run.teacher_jobs()] == [second.id]


def test_a_failed_teacher_blocks_its_online_cells(tiny_plan: Planner) -> None:
    online = tiny_plan(teachers=TEACHERS, targets="online")
    run = schedule(online)
    first, second = online.teachers
    run.start(first)
    run.finish(first, "it broke")
    blocked = [cell for cell in online.cells if run.state(cell) == "blocked"]
    assert [cell.teacher for cell in blocked] == [first] * 4
    assert all(run.errors[cell.id] == f"not run: teacher {first.id} failed" for cell in blocked)
    assert [job.teacher for job in run.teacher_jobs()] == [second]


def test_failed_logits_block_their_cells_and_not_the_teacher(plan: Plan) -> None:
    run = schedule(plan)
    (logits, _), (first, _) = plan.logits, plan.teachers
    for stage, error in ((first, None), (logits, "the disk is full")):
        run.start(stage)
        run.finish(stage, error)
    assert run.state(first) == "done"
    blocked = [cell for cell in plan.cells if run.state(cell) == "blocked"]
    assert [cell.logits for cell in blocked] == [logits] * 4


def dealt(lanes: list[list[TeacherJob]]) -> list[list[str]]:
    return [[job.teacher.model.shown for job in lane] for lane in lanes]


@pytest.mark.parametrize(
    ("count", "lanes"),
    [
        (1, [["A", "B", "C", "D", "E"]]),
        # 1 + 6, 4 + 5, 9
        (3, [["A", "D"], ["B", "C"], ["E"]]),
        # 4 + 9, 1 + 5 + 6
        (2, [["B", "E"], ["A", "C", "D"]]),
        (5, [["E"], ["D"], ["C"], ["B"], ["A"]]),
        (9, [["E"], ["D"], ["C"], ["B"], ["A"]]),
    ],
)
def test_teachers_are_dealt_out_to_lanes_of_about_equal_cost_each_the_cheapest_first(
    tiny_plan: Planner, count: int, lanes: list[list[str]]
) -> None:
    vit = TEACHERS[1]
    teachers = [{**vit, "label": label, "seed": seed} for seed, label in enumerate("DBEAC")]
    plan = tiny_plan(teachers=teachers, seeds=[0])
    costs = dict.fromkeys((stage.id for stage in plan.stages), 0.0)
    costs |= {t.id: {"A": 1.0, "B": 4.0, "C": 5.0, "D": 6.0, "E": 9.0}[t.model.shown] for t in plan.teachers}
    assert sorted(dealt(schedule(plan, costs=costs).lanes(count))) == sorted(lanes)


def test_lanes_hold_every_job_once_and_each_teacher_before_its_logits(plan: Plan) -> None:
    costs = {stage.id: float(i) for i, stage in enumerate(plan.stages)}
    lanes = schedule(plan, costs=costs).lanes(2)
    stages = [stage for lane in lanes for job in lane for stage in job.stages]
    assert sorted(stage.id for stage in stages) == sorted(s.id for s in (*plan.teachers, *plan.logits))
    assert [[stage.kind for stage in job.stages] for lane in lanes for job in lane] == [["teacher", "logits"]] * 2
    everything = {stage.id for stage in plan.stages}
    assert schedule(plan, done=everything).lanes(3) == []


def test_logits_weigh_in_a_lane(tiny_plan: Planner) -> None:
    """Of three teachers, the one whose logits are there already costs least, though it is the dearest to train."""
    teachers = [{**TEACHERS[1], "label": label, "seed": seed} for seed, label in enumerate("ABC")]
    plan = tiny_plan(teachers=teachers, seeds=[0])
    a, b, c = plan.teachers
    costs = {a.id: 1.0, b.id: 2.0, c.id: 3.0} | {s.id: 10.0 for s in plan.logits}
    done = {plan.data.id, *(s.id for s in plan.logits if s.teacher == c)}
    lanes = Schedule(plan, done=done, costs=costs, observer=Recorder()).lanes(2)
    assert sorted(map(sorted, dealt(lanes))) == [["A", "C"], ["B"]]


def test_a_trained_teachers_logits_come_before_a_teacher_to_train(plan: Plan) -> None:
    """Its cells can start soonest, however long it took to train."""
    trained, untrained = plan.teachers
    costs = {trained.id: 100.0, untrained.id: 50.0} | {stage.id: 5.0 for stage in plan.logits}
    run = schedule(plan, done={plan.data.id, trained.id}, costs=costs)
    assert [(job.teacher, job.train) for job in run.teacher_jobs()] == [(trained, False), (untrained, True)]
    assert dealt(run.lanes(1)) == [["ResNet-T", "ViT-T"]]


def test_failed_cells_touch_nothing_else(plan: Plan) -> None:
    run = schedule(plan)
    cell = run.next_cell()
    assert cell is not None
    run.finish(cell, "it broke")
    assert [state for state in run.states().values() if state in ("failed", "blocked")] == ["failed"]


def test_done_stages_are_skipped_and_logits_nobody_needs_are_not_computed(plan: Plan) -> None:
    first = plan.teachers[0]
    done = {plan.data.id, *(cell.id for cell in plan.cells if cell.logits and cell.logits.teacher.id == first.id)}
    run = schedule(plan, done=done)
    jobs = {job.teacher.id: job for job in run.teacher_jobs()}
    assert jobs[first.id].train
    assert jobs[first.id].logits == ()
    assert len(jobs[plan.teachers[1].id].logits) == 1
    everything = schedule(plan, done={stage.id for stage in plan.stages})
    assert everything.teacher_jobs() == []
    assert not everything.cells_left()
    assert everything.pending() == []


def test_stopping_hands_out_nothing_more(plan: Plan) -> None:
    run = schedule(plan)
    cell = run.next_cell()
    assert cell is not None
    run.start(cell)
    run.stop()
    assert run.next_cell() is None
    assert not run.cells_left()
    assert run.running() == [cell]


def test_observers_see_every_change(plan: Plan) -> None:
    recorder = Recorder()
    run = Schedule(plan, done={plan.data.id}, costs={}, observer=recorder)
    run.start(plan.teachers[0])
    run.finish(plan.teachers[0])
    assert recorder.seen == [(plan.teachers[0].id, "running", None), (plan.teachers[0].id, "done", None)]
