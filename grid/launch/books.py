"""What becomes of a launch's stages: their states, the launch's outcome, and what people are told of both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from rich.console import Console

from grid.launch.launch import Launch, Outcome
from grid.plan import Stage
from grid.plan.schedule import Schedule, StageState, unneeded_stages
from grid.store.failures import record_failure
from grid.store.standing import of_other_inputs
from grid.store.store import Inputs
from grid.watch.progress import Reporter

if TYPE_CHECKING:
    from grid.cluster.pulse import Pulse
    from grid.cluster.teachers.lanes import Lanes

log = logging.getLogger("kd_grid")


class Books:
    """Observes the schedule, and is told by whoever has stages run (`grid.cluster.ledger.Ledger`)."""

    def __init__(
        self,
        launch: Launch,
        console: Console,
        *,
        done: Collection[str],
        waits: Collection[str],
        costs: Mapping[str, float],
        on_done: Callable[[Stage], None],
    ) -> None:
        """done: ids of stages that are, or that nobody needs. waits: of those that are complete, but whose data set or
        teacher is made again."""
        self.plan, self.store, self.launch = launch.plan, launch.store, launch.name
        self.waits, self._on_done = waits, on_done
        self.outcome = Outcome(launch.plan, reused=len(done))
        self.reporter = Reporter(launch.plan, launch.store, console, done={*done}, costs=costs)
        self.schedule = Schedule(launch.plan, done=done, costs=costs, observer=self)
        self.lanes: Lanes | None = None
        self.pulse: Pulse | None = None

    def start(self, stage: Stage) -> bool:
        return self.schedule.start(stage)

    def give_back(self, stage: Stage) -> None:
        self.schedule.give_back(stage)

    def say(self, stage: Stage, text: str) -> None:
        self.reporter.say(f"{self.reporter.titles[stage.id]}: {text}")

    def finish(self, stage: Stage, error: str | None) -> None:
        recorded = error is None or self.store.failure(stage, launch=self.launch) is not None
        if not recorded and (self.schedule.stopped or (self.pulse is not None and self.pulse.loss() is not None)):
            return  # interrupted, not failed
        if not recorded:
            # Its worker died before it could write a record of its own.
            record_failure(stage, self.store, str(error), launch=self.launch)
        if error is None and self.waits:
            self._reuse(stage)
        self.schedule.finish(stage, error)
        if self.lanes is not None:
            self.lanes.deal()  # what needed it may be ready

    def _reuse(self, made: Stage) -> None:
        """Of the stages that were complete but for one that was made again, reuse those that learned from the very same
        and say how many did not."""
        inputs, others = Inputs(self.store), []
        finished = {i for i, state in self.schedule.states().items() if state in ("done", "reused")} | {made.id}
        for stage in self.plan.stages:
            known = {of.id for of in stage.computed_from} <= finished
            if stage.id not in self.waits or stage.id in finished or not known:
                continue
            standing = self.store.standing(stage, inputs)
            if standing.is_done and self.schedule.reuse(stage):
                finished.add(stage.id)
            elif made.id in {of.id for of in stage.computed_from}:
                others.append((stage, standing))
        unneeded = unneeded_stages(self.plan, finished) - finished
        for stage in self.plan.stages:
            if stage.id in unneeded:
                self.schedule.reuse(stage)
        for line in of_other_inputs(others, self.plan, self.store):
            log.warning("%s", line)
            self.reporter.say(f"warning: {line}")

    def on_change(self, stage: Stage, state: StageState, error: str | None) -> None:
        record = None
        if state == "done":
            record = self.store.record(stage)
            if record.launch == self.launch:
                self.outcome.done += 1
                self.outcome.lost_workers += (record.tries or 1) - 1
            else:
                self.outcome.reused += 1  # another launch was at it
            self._on_done(stage)
        elif state == "reused":
            self.outcome.reused += 1
        elif state == "failed":
            self.outcome.failed.append(stage)
        elif state == "blocked":
            self.outcome.blocked.append(stage)
        try:
            self.reporter.on_change(stage, state, error, record)
        except Exception:  # what cannot be shown must not end the thread that does the work
            log.exception("stage %s could not be reported as %s", stage.id, state)
