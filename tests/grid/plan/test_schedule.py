"""Each stage once what it needs is done, what others wait for first, and nothing after what failed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from grid.plan import CellStage, Plan, Stage, TeacherStage
from grid.plan.schedule import Schedule, StageState, unneeded_stages
from tests.conftest import VIT, tiny_grid

Planner = Callable[..., Plan]


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[str, StageState, str | None]] = []

    def on_change(self, stage: Stage, state: StageState, error: str | None) -> None:
        self.seen.append((stage.id, state, error))


TEACHERS = [*tiny_grid()["teachers"], {"label": "ViT-T", "name": "vit_tiny_patch16_224", "args": VIT}]


@pytest.fixture
def plan(tiny_plan: Planner) -> Plan:
    return tiny_plan(teachers=TEACHERS)


def schedule(plan: Plan, done: set[str] | None = None, costs: dict[str, float] | None = None) -> Schedule:
    done = {plan.data.id} if done is None else done
    return Schedule(plan, done=done | unneeded_stages(plan, done), costs=costs or {}, observer=Recorder())


def drain(schedule: Schedule) -> list[Stage]:
    stages = []
    while (stage := schedule.next_in_pool()) is not None:
        assert schedule.start(stage)
        stages.append(stage)
    return stages


def cells_in(stages: list[Stage]) -> list[CellStage]:
    assert all(isinstance(stage, CellStage) for stage in stages)
    return [stage for stage in stages if isinstance(stage, CellStage)]


def do(schedule: Schedule, *stages: Stage) -> None:
    for stage in stages:
        assert schedule.start(stage)
        schedule.finish(stage)


def test_baselines_start_at_once_and_distilled_cells_wait_for_their_own_teacher(plan: Plan) -> None:
    run = schedule(plan)
    assert {cell.mode for cell in cells_in(drain(run))} == {"baseline"}
    first, second = plan.teachers
    do(run, first)
    (logits,) = drain(run)  # by themselves, as soon as their teacher is trained
    assert logits == plan.logits[0]
    run.finish(logits)
    ready = cells_in(drain(run))
    assert {cell.logits.teacher.id for cell in ready if cell.logits} == {first.id}
    assert len(ready) == 4
    assert run.is_left("pool")
    do(run, second)
    assert drain(run) == [plan.logits[1]]  # its logits are not there yet


def test_online_cells_wait_for_their_teacher_alone(tiny_plan: Planner) -> None:
    run = schedule(online := tiny_plan(teachers=TEACHERS, targets="online"))
    assert {cell.mode for cell in cells_in(drain(run))} == {"baseline"}
    first, second = online.teachers
    run.start(first)
    assert drain(run) == []
    run.finish(first)
    ready = cells_in(drain(run))
    assert [cell.teacher for cell in ready] == [first] * 4
    assert run.deal(2) == [[second]]


def test_a_teacher_that_is_given_is_looked_at_in_the_pool(plan: Plan) -> None:
    trained = plan.teachers[0]
    given = trained.model_copy(update={"model": trained.model.model_copy(update={"checkpoint": "weights.safetensors"})})
    assert (given.place, trained.place) == ("pool", "group")


def test_what_others_wait_for_comes_first_the_cheapest_before_all(plan: Plan) -> None:
    run = schedule(plan, costs={stage.id: 100.0 - i for i, stage in enumerate(plan.stages)})
    do(run, *plan.teachers)
    dearer, cheaper = plan.logits
    assert drain(run)[:2] == [cheaper, dearer]


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
    assert run.deal(2) == [[second]]


def test_a_failed_teacher_blocks_its_online_cells(tiny_plan: Planner) -> None:
    online = tiny_plan(teachers=TEACHERS, targets="online")
    run = schedule(online)
    first, second = online.teachers
    run.start(first)
    run.finish(first, "it broke")
    blocked = [cell for cell in online.cells if run.state(cell) == "blocked"]
    assert [cell.teacher for cell in blocked] == [first] * 4
    assert all(run.errors[cell.id] == f"not run: teacher {first.id} failed" for cell in blocked)
    assert run.deal(2) == [[second]]


def test_failed_logits_block_their_cells_and_not_the_teacher(plan: Plan) -> None:
    run = schedule(plan)
    (logits, _), (first, _) = plan.logits, plan.teachers
    for stage, error in ((first, None), (logits, "the disk is full")):
        run.start(stage)
        run.finish(stage, error)
    assert run.state(first) == "done"
    blocked = [cell for cell in plan.cells if run.state(cell) == "blocked"]
    assert [cell.logits for cell in blocked] == [logits] * 4


def names(lanes: list[list[Stage]]) -> list[list[str]]:
    return [[stage.model.shown for stage in lane if isinstance(stage, TeacherStage)] for lane in lanes]


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
    assert sorted(names(schedule(plan, costs=costs).deal(count))) == sorted(lanes)


def test_each_teacher_is_dealt_out_once(plan: Plan) -> None:
    run = schedule(plan)
    assert run.deal(0) == []
    assert [len(lane) for lane in run.deal(1)] == [2]
    assert run.deal(2) == []
    everything = {stage.id for stage in plan.stages}
    assert schedule(plan, done=everything).deal(3) == []


def test_a_teacher_is_dealt_out_once_what_it_needs_is_done(plan: Plan) -> None:
    run = schedule(plan, done=set())
    assert run.deal(2) == []
    do(run, plan.data)
    assert len(run.deal(2)) == 2


def test_failed_cells_touch_nothing_else(plan: Plan) -> None:
    run = schedule(plan)
    cell = run.next_in_pool()
    assert cell is not None
    run.finish(cell, "it broke")
    assert [state for state in run.states().values() if state in ("failed", "blocked")] == ["failed"]


def test_done_stages_are_skipped_and_logits_nobody_needs_are_not_computed(plan: Plan) -> None:
    first = plan.teachers[0]
    done = {plan.data.id, *(cell.id for cell in plan.cells if cell.logits and cell.logits.teacher.id == first.id)}
    run = schedule(plan, done=done)
    assert sorted(names(run.deal(2))) == [["ResNet-T"], ["ViT-T"]]
    assert [run.state(stage) for stage in plan.logits] == ["reused", "waiting"]
    everything = schedule(plan, done={stage.id for stage in plan.stages})
    assert everything.deal(2) == []
    assert not everything.is_left("pool")
    assert everything.pending() == []


def test_stopping_hands_out_nothing_more(plan: Plan) -> None:
    run = schedule(plan)
    cell = run.next_in_pool()
    assert cell is not None
    run.start(cell)
    run.stop()
    assert run.next_in_pool() is None
    assert run.deal(2) == []
    assert not run.start(plan.teachers[0])
    assert not run.is_left("pool")
    assert run.running() == [cell]


def test_observers_see_every_change(plan: Plan) -> None:
    recorder = Recorder()
    run = Schedule(plan, done={plan.data.id}, costs={}, observer=recorder)
    run.start(plan.teachers[0])
    run.finish(plan.teachers[0])
    assert recorder.seen == [(plan.teachers[0].id, "running", None), (plan.teachers[0].id, "done", None)]
