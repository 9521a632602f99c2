"""What may run next: the plan's stages, their state and their order. No Ray, no clocks of its own; thread-safe."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Literal, Protocol

from grid.plan.base import Place
from grid.plan.grid_plan import Plan
from grid.plan.stages import Stage

StageState = Literal["waiting", "running", "done", "reused", "failed", "blocked"]


class Observer(Protocol):
    """Told of every change, from whichever thread makes it, one at a time."""

    def on_change(self, stage: Stage, state: StageState, error: str | None) -> None: ...


def unneeded_stages(plan: Plan, done: Collection[str]) -> set[str]:
    """Ids of stages that are for others alone, and that none needs that is not done: they are not computed, done or
    not."""
    needed: set[str] = set()
    for stage in reversed(plan.stages):
        if stage.id not in done and (stage.id in needed or not stage.is_for_others):
            needed |= {other.id for other in stage.needs}
    return {stage.id for stage in plan.stages if stage.is_for_others} - needed


class Schedule:
    """States of a plan's stages. A stage is handed out once all that it needs are done. `costs`: relative work a
    stage."""

    def __init__(self, plan: Plan, *, done: Collection[str], costs: Mapping[str, float], observer: Observer) -> None:
        self.plan = plan
        self.observer = observer
        self._costs = costs
        self._lock = threading.RLock()
        self._stages: dict[str, Stage] = {stage.id: stage for stage in plan.stages}
        self._states: dict[str, StageState] = {
            stage: "reused" if stage in done else "waiting" for stage in self._stages
        }
        self._awaited = {other.id for stage in plan.stages for other in stage.needs}
        self._dealt: set[str] = set()
        self.errors: dict[str, str] = {}
        self._stopped = False

    def state(self, stage: Stage) -> StageState:
        with self._lock:
            return self._states[stage.id]

    def states(self) -> dict[str, StageState]:
        with self._lock:
            return dict(self._states)

    def pending(self) -> list[Stage]:
        """Stages not finished yet, in the plan's order."""
        with self._lock:
            return [s for s in self._stages.values() if self._states[s.id] in ("waiting", "running")]

    def running(self) -> list[Stage]:
        with self._lock:
            return [s for s in self._stages.values() if self._states[s.id] == "running"]

    def is_left(self, place: Place) -> bool:
        """Whether any stage of this place may still be handed out; one that runs may be given back."""
        with self._lock:
            left = (s for s in self._stages.values() if self._states[s.id] in ("waiting", "running"))
            return not self._stopped and any(stage.place == place for stage in left)

    def next_in_pool(self, *, but: Collection[str] = ()) -> Stage | None:
        """The stage that a worker of the pool is to do next; None where there is none now. What others need comes
        first, the cheapest of it before all; of the others the most expensive, so that no long one is left for the
        end. but: ids that are passed over."""
        with self._lock:
            ready = [stage for stage in self._ready("pool") if stage.id not in but]
            return min(ready, key=self._order, default=None)

    def _order(self, stage: Stage) -> tuple[bool, float]:
        cost = self._costs.get(stage.id, 0.0)
        return (False, cost) if stage.id in self._awaited else (True, -cost)

    def deal(self, lanes: int) -> list[list[Stage]]:
        """What groups of workers may do by now, each stage once, dealt out to at most so many lanes of about equal
        cost, each the cheapest first: what needs it can start soonest."""
        with self._lock:
            ready = [stage for stage in self._ready("group") if stage.id not in self._dealt]
            ready.sort(key=lambda stage: self._costs.get(stage.id, 0.0), reverse=True)
            dealt: list[list[Stage]] = [[] for _ in range(min(lanes, len(ready)))]
            if not dealt:
                return []
            for stage in ready:
                min(dealt, key=lambda lane: (self._cost(lane), len(lane))).insert(0, stage)
            self._dealt |= {stage.id for stage in ready}
            return dealt

    def _cost(self, stages: Collection[Stage]) -> float:
        return sum(self._costs.get(stage.id, 0.0) for stage in stages)

    def _ready(self, place: Place) -> list[Stage]:
        """Waiting stages of this place whose needs are done; none once it was stopped."""
        if self._stopped:
            return []
        waiting = (s for s in self._stages.values() if s.place == place and self._states[s.id] == "waiting")
        return [s for s in waiting if all(self._states[other.id] in ("done", "reused") for other in s.needs)]

    def start(self, stage: Stage) -> bool:
        """Mark a stage as running; False, and nothing done, where it does not wait, as what a failure has blocked, or
        where nothing more is to be done."""
        with self._lock:
            may = self._states[stage.id] == "waiting" and not self._stopped
            if may:
                self._set(stage, "running")
            return may

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
            if self._states[stage.id] == "waiting" and failed.id in {other.id for other in stage.needs}:
                reason = f"not run: {failed.kind} {failed.id} failed"
                self._set(stage, "blocked", reason)
                self._block(stage, reason)

    def _set(self, stage: Stage, state: StageState, error: str | None = None) -> None:
        with self._lock:
            self._states[stage.id] = state
            if error:
                self.errors[stage.id] = error
            self.observer.on_change(stage, state, error)
