"""Baselines at once, distilled cells when their own teacher is ready, and nothing after what failed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from grid.plan import CellStage, Plan, Stage
from grid.schedule import Schedule, State, unneeded_logits
from tests.conftest import VIT, tiny_grid

Planner = Callable[..., Plan]


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[str, State, str | None]] = []

    def on_change(self, stage: Stage, state: State, error: str | None) -> None:
        self.seen.append((stage.id, state, error))


@pytest.fixture
def plan(tiny_plan: Planner) -> Plan:
    second = {"label": "ViT-T", "name": "vit_tiny_patch16_224", "args": VIT}
    return tiny_plan(teachers=[*tiny_grid()["teachers"], second])


def schedule(plan: Plan, done: set[str] | None = None, costs: dict[str, float] | None = None) -> Schedule:
    done = {plan.data.id} if done is None else done
    return Schedule(plan, done=done | unneeded_logits(plan, done), costs=costs or {}, observer=Recorder())


def drain(schedule: Schedule) -> list[CellStage]:
    cells = []
    while (cell := schedule.next_cell()) is not None:
        cells.append(cell)
    return cells


def test_baselines_start_at_once_and_distilled_cells_wait_for_their_own_teacher(plan: Plan) -> None:
    run = schedule(plan)
    assert {cell.mode for cell in drain(run)} == {"baseline"}
    first, second = plan.teachers
    for stage in (first, *[s for s in plan.logits if s.teacher.id == first.id]):
        run.start(stage)
        run.finish(stage)
    ready = drain(run)
    assert {cell.logits.teacher.id for cell in ready if cell.logits} == {first.id}
    assert len(ready) == 4
    assert run.cells_left()
    run.start(second)
    run.finish(second)
    assert drain(run) == []  # its logits are not there yet


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
    assert run.next_cell() is not None
    run.stop()
    assert run.next_cell() is None
    assert not run.cells_left()
    assert run.running_cells() == 1


def test_observers_see_every_change(plan: Plan) -> None:
    recorder = Recorder()
    run = Schedule(plan, done={plan.data.id}, costs={}, observer=recorder)
    run.start(plan.teachers[0])
    run.finish(plan.teachers[0])
    assert recorder.seen == [(plan.teachers[0].id, "running", None), (plan.teachers[0].id, "done", None)]
