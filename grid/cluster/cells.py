"""Run cells with Ray Tune: one trial a cell, handed out by the schedule, in worker processes that are reused."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.search import Searcher

from grid.cluster.forgetful import Forgetful, Unseen
from grid.cluster.session import MAX_WORKER_DEATHS, Capacity
from grid.cluster.trial import Cell
from grid.lease import Leases
from grid.plan import CellStage, stage_to_json
from grid.schedule import Schedule
from grid.store import Store

CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}
ELSEWHERE_SECONDS = 2.0


def run_cells(
    schedule: Schedule,
    store: Store,
    capacity: Capacity,
    *,
    busy_lanes: Callable[[], int],
    finish: Callable[[CellStage, str | None], None],
    scratch: str,
    run: dict[str, Any],
) -> None:
    """Run every cell that the schedule hands out; returns when it has none left. Must be called in the main thread."""
    # With a search algorithm, Tune would otherwise keep a single trial waiting for its worker.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(1, capacity.slots(0)))
    # Tune would hand them on by way of a log that anybody may read; workers have their node's own environment.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(CREDENTIALS)
    tuner = tune.Tuner(
        tune.with_resources(Cell, capacity.cell.as_dict()),
        tune_config=tune.TuneConfig(
            search_alg=_Cells(schedule, store, capacity, busy_lanes=busy_lanes, finish=finish, run=run),
            scheduler=Forgetful(),
            num_samples=-1,  # until the search says so: a cell may be handed out again
            reuse_actors=True,
            trial_name_creator=lambda trial: f"cell-{trial.trial_id}",
            trial_dirname_creator=lambda trial: f"cell-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="cells",
            storage_path=scratch,
            failure_config=tune.FailureConfig(max_failures=MAX_WORKER_DEATHS),
            callbacks=[Unseen()],
            verbose=0,
        ),
    )
    tuner.fit()


class _Cells(Searcher):  # type: ignore[misc]
    """Gives Tune the next ready cell whenever a slot is free, and the schedule what became of it."""

    def __init__(
        self,
        schedule: Schedule,
        store: Store,
        capacity: Capacity,
        *,
        busy_lanes: Callable[[], int],
        finish: Callable[[CellStage, str | None], None],
        run: dict[str, Any],
    ) -> None:
        super().__init__()
        self.schedule, self.capacity, self.busy_lanes, self.finish = schedule, capacity, busy_lanes, finish
        self.store, self.leases = store, Leases(store, run["launch"])
        self.common = {"storage": store.url, "threads": capacity.cell.cpus, "run": run}
        self.given: dict[str, CellStage] = {}
        self.looked = -ELSEWHERE_SECONDS
        self.elsewhere: set[str] = set()

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if not self.schedule.cells_left():
            return Searcher.FINISHED
        if self.schedule.running_cells() >= self.capacity.slots(self.busy_lanes()):
            return None
        self._look_elsewhere()
        while (cell := self.schedule.next_cell(but=self.elsewhere)) is not None:
            if self.leases.other(cell.folder) is None:
                break
            self.elsewhere.add(cell.id)
            self.schedule.give_back(cell)
        if cell is None:
            return None
        self.given[trial_id] = cell
        return {"stage": stage_to_json(cell), **self.common}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        cell = self.given.pop(trial_id, None)
        if cell is None:
            return
        if error:
            self.finish(cell, f"its worker failed {MAX_WORKER_DEATHS + 1} times (out of memory?); see Ray's logs")
        elif (result or {}).get("left"):
            self.elsewhere.add(cell.id)
            self.schedule.give_back(cell)
        else:
            self.finish(cell, (result or {}).get("error") or None)

    def _look_elsewhere(self) -> None:
        """Cells that another launch is at, now and then: some are done by now, and some it has given up."""
        if not self.elsewhere or time.monotonic() - self.looked < ELSEWHERE_SECONDS:
            return
        self.looked = time.monotonic()
        for cell in self.schedule.plan.cells:
            if cell.id in self.elsewhere and self.leases.other(cell.folder) is None:
                self.elsewhere.discard(cell.id)
                if self.store.is_done(cell):
                    self.finish(cell, None)

    # Tune keeps copies of its search algorithm to resume from; here the store knows what is done.

    def __reduce__(self) -> tuple[Any, ...]:
        return (Searcher, ())

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass
