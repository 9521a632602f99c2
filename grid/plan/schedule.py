"""What may run next: the plan's stages, their state and their order. No Ray, no clocks of its own; thread-safe."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from grid.plan import CellStage, LogitsStage, Plan, Stage, TeacherStage

State = Literal["waiting", "running", "done", "reused", "failed", "blocked"]


class Observer(Protocol):
    """Told of every change, from whichever thread makes it, one at a time."""

    def on_change(self, stage: Stage, state: State, error: str | None) -> None: ...


@dataclass(frozen=True)
class TeacherJob:
    """A teacher to train (unless it is done) and then its logits to compute, in one go."""

    teacher: TeacherStage
    train: bool
    logits: tuple[LogitsStage, ...]

    @property
    def stages(self) -> tuple[TeacherStage | LogitsStage, ...]:
        return (self.teacher, *self.logits) if self.train else self.logits


def unneeded_logits(plan: Plan, done: set[str]) -> set[str]:
    """Ids of teacher logits that no unfinished cell reads: they are not computed, done or not."""
    needed = {cell.logits.id for cell in plan.cells if cell.logits is not None and cell.id not in done}
    return {stage.id for stage in plan.logits} - needed


class Schedule:
    """States of a plan's stages. Teachers run on a lane of their own beside the cells; a cell is handed out as soon as
    what it needs is done. `costs`: relative work a stage, so that the longest cells start first."""

    def __init__(self, plan: Plan, *, done: set[str], costs: Mapping[str, float], observer: Observer) -> None:
        self.plan = plan
        self.observer = observer
        self._costs = costs
        self._lock = threading.RLock()
        self._stages: dict[str, Stage] = {stage.id: stage for stage in plan.stages}
        self._states: dict[str, State] = {stage: "reused" if stage in done else "waiting" for stage in self._stages}
        self.errors: dict[str, str] = {}
        self._stopped = False

    def state(self, stage: Stage) -> State:
        with self._lock:
            return self._states[stage.id]

    def states(self) -> dict[str, State]:
        with self._lock:
            return dict(self._states)

    def pending(self) -> list[Stage]:
        """Stages not finished yet, in the plan's order."""
        with self._lock:
            return [s for s in self._stages.values() if self._states[s.id] in ("waiting", "running")]

    def teacher_jobs(self) -> list[TeacherJob]:
        """What there is to do for teachers, the cheapest first: their cells can start soonest."""
        with self._lock:
            jobs = []
            for teacher in self.plan.teachers:
                streams = [s for s in self.plan.logits if s.teacher.id == teacher.id]
                waiting = tuple(s for s in streams if self._states[s.id] == "waiting")
                train = self._states[teacher.id] == "waiting"
                if train or waiting:
                    jobs.append(TeacherJob(teacher, train, waiting))
            return sorted(jobs, key=self._cost)

    def lanes(self, count: int) -> list[list[TeacherJob]]:
        """The teachers' jobs dealt out to at most so many lanes of about equal cost, each the cheapest first."""
        jobs = self.teacher_jobs()
        lanes: list[list[TeacherJob]] = [[] for _ in range(min(count, len(jobs)))]
        for job in reversed(jobs):
            min(lanes, key=lambda lane: sum(map(self._cost, lane))).insert(0, job)
        return lanes

    def _cost(self, job: TeacherJob) -> float:
        return sum(self._costs.get(stage.id, 0) for stage in job.stages)

    def next_cell(self, *, but: Collection[str] = ()) -> CellStage | None:
        """The most expensive waiting cell whose inputs are done; None where there is none now. but: ids that are passed
        over."""
        with self._lock:
            if self._stopped:
                return None
            ready = [
                cell
                for cell in self.plan.cells
                if self._states[cell.id] == "waiting"
                and cell.id not in but
                and all(self._states[needed.id] in ("done", "reused") for needed in cell.needs)
            ]
            if not ready:
                return None
            return max(ready, key=lambda cell: self._costs.get(cell.id, 0))

    def cells_left(self) -> bool:
        """Whether any cell may still be handed out; one that runs may be given back."""
        with self._lock:
            left = ("waiting", "running")
            return not self._stopped and any(self._states[cell.id] in left for cell in self.plan.cells)

    def running(self) -> list[Stage]:
        with self._lock:
            return [s for s in self._stages.values() if self._states[s.id] == "running"]

    def start(self, stage: Stage) -> None:
        self._set(stage, "running")

    def give_back(self, stage: Stage) -> None:
        """A stage that was started waits again."""
        self._set(stage, "waiting")

    def reuse(self, stage: Stage) -> bool:
        """A stage that waits is done after all, by an earlier launch; False where it does not wait."""
        with self._lock:
            waits = self._states[stage.id] == "waiting"
            if waits:
                self._set(stage, "reused")
            return waits

    def finish(self, stage: Stage, error: str | None = None) -> None:
        """Mark a stage as done, or as failed with what it blocks."""
        with self._lock:
            self._set(stage, "failed" if error else "done", error)
            if error:
                self._block(stage, error)

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._lock:
            self._stopped = True

    @property
    def stopped(self) -> bool:
        with self._lock:
            return self._stopped

    def _block(self, failed: Stage, error: str) -> None:
        for stage in self._stages.values():
            if self._states[stage.id] == "waiting" and failed.id in stage.inputs().values():
                reason = f"not run: {failed.kind} {failed.id} failed"
                self._set(stage, "blocked", reason)
                self._block(stage, reason)

    def _set(self, stage: Stage, state: State, error: str | None = None) -> None:
        with self._lock:
            self._states[stage.id] = state
            if error:
                self.errors[stage.id] = error
            self.observer.on_change(stage, state, error)
