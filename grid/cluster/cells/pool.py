"""Run cells with Ray Tune: one trial a cell, handed out by the schedule, in worker processes that are reused."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from grid.cluster.cells.forgetful import Forgetful, Unseen
from grid.cluster.cells.trial_worker import Cell
from grid.cluster.nodes.capacity import MAX_WORKER_DEATHS, Share
from grid.cluster.nodes.fleet import Fleet
from grid.cluster.nodes.memory_kills import MemoryKills
from grid.cluster.nodes.packing import Packing
from grid.cluster.ray_internals.tune import keep_from_workers
from grid.plan import CellStage, stage_to_json
from grid.plan.schedule import Schedule
from grid.store.lease import Leases
from grid.store.store import Store

CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}
ELSEWHERE_SECONDS = 2.0
REST_SECONDS = 10.0  # of a cell whose worker was ended for lack of memory, once more after each time


def run_cells(
    schedule: Schedule,
    store: Store,
    fleet: Fleet,
    packing: Packing,
    *,
    busy_lanes: Callable[[], int],
    finish: Callable[[CellStage, str | None], None],
    say: Callable[[CellStage, str], None],
    scratch: str,
    run: dict[str, Any],
) -> None:
    """Run every cell that the schedule hands out; returns when it has none left. Must be called in the main thread.
    say: is told what befalls a cell that goes on all the same."""
    # As many trials as the search gives may wait for a worker; with one of its own, Tune would keep a single one.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "1000000"
    # Tune would hand them on by way of a log that anybody may read; workers have their node's own environment.
    keep_from_workers(CREDENTIALS)
    kills = MemoryKills()
    scheduler = Forgetful(kills)
    cells = _Cells(
        schedule,
        store,
        fleet,
        packing,
        busy_lanes=busy_lanes,
        finish=finish,
        say=say,
        make_room=scheduler.let_idle_workers_go,
        killed=kills.take,
        run=run,
    )
    tuner = tune.Tuner(
        tune.with_resources(Cell, _share),
        tune_config=tune.TuneConfig(
            search_alg=cells,
            scheduler=scheduler,
            num_samples=-1,  # until the search says so: a cell may be handed out again
            reuse_actors=True,
            trial_name_creator=lambda trial: f"cell-{trial.trial_id}",
            trial_dirname_creator=lambda trial: f"cell-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="cells",
            storage_path=scratch,
            failure_config=tune.FailureConfig(max_failures=MAX_WORKER_DEATHS),
            callbacks=[Unseen(), _Lost(cells)],
            verbose=0,
        ),
    )
    tuner.fit()


def _share(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    return tune.PlacementGroupFactory([config["share"]])


class _Lost(tune.Callback):  # type: ignore[misc]
    """Says that a cell goes on after its worker was lost."""

    def __init__(self, cells: _Cells) -> None:
        self.cells = cells

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.cells.on_trial_recover(trial.trial_id, trial.num_failures)


class _Cells(Searcher):  # type: ignore[misc]
    """Gives Tune the next ready cell whenever there is room for it, and the schedule what became of it."""

    def __init__(
        self,
        schedule: Schedule,
        store: Store,
        fleet: Fleet,
        packing: Packing,
        *,
        busy_lanes: Callable[[], int],
        finish: Callable[[CellStage, str | None], None],
        say: Callable[[CellStage, str], None],
        make_room: Callable[[], None],
        killed: Callable[[str], str | None],
        run: dict[str, Any],
    ) -> None:
        super().__init__()
        self.schedule, self.fleet, self.packing = schedule, fleet, packing
        self.busy_lanes, self.finish, self.say, self.make_room = busy_lanes, finish, say, make_room
        self.killed = killed
        self.store, self.leases = store, Leases(store, run["launch"])
        self.common = {"storage": store.url, "run": run}
        self.given: dict[str, tuple[CellStage, Share]] = {}
        self.looked = -ELSEWHERE_SECONDS
        self.alone: Counter[str] = Counter()
        self.rests_until: dict[str, float] = {}
        self.elsewhere: set[str] = set()
        self.has_company = False  # of other launches

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if not self.schedule.cells_left():
            return Searcher.FINISHED
        if not self._has_room(self.fleet.capacity().cell):
            self.make_room()
        self._look_elsewhere()
        measured: set[str] = set()
        resting = {cell for cell, until in self.rests_until.items() if time.monotonic() < until}
        while (cell := self.schedule.next_cell(but=self.elsewhere | measured | resting)) is not None:
            share = self.packing.share_of(cell)
            if share is None:
                measured.add(cell.id)
            elif not self._has_room(share):
                return None
            # A worker finds out as well: only where other launches are about is the look worth its while.
            elif not self.has_company or self.leases.other(cell.folder) is None:
                self.schedule.start(cell)
                self.given[trial_id] = (cell, share)
                how = {
                    "share": share.as_dict(),
                    "threads": self.fleet.capacity().cell.cpus,
                    "shares_gpu": share.is_part_of_a_gpu,
                    "passed_over": self.leases.silent(cell.folder),
                }
                return {"stage": stage_to_json(cell), **how, **self.common}
            else:
                self.elsewhere.add(cell.id)
        return None

    def _has_room(self, share: Share) -> bool:
        running = [share for _, share in self.given.values()]
        return self.fleet.capacity().has_room(share, running=running, busy_lanes=self.busy_lanes())

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        cell, share = self.given.pop(trial_id, (None, None))
        if cell is None or share is None:
            return
        what, killed = result or {}, self.killed(trial_id)
        if what.get("peak"):
            self.packing.took(cell, int(what["peak"]))
        if killed is not None:
            self._hand_out_with_more_memory(cell, share, killed)
        elif error:
            self.finish(cell, f"its worker failed {MAX_WORKER_DEATHS + 1} times (out of memory?); see Ray's logs")
        elif what.get("crowded"):
            more = self.packing.out_of_memory(cell, share)
            self.say(cell, f"no memory left beside others on the GPU; it gets {more.gpus:g} of one from now on")
            self.schedule.give_back(cell)
        elif what.get("left"):
            self.elsewhere.add(cell.id)
            self.has_company = True
            self.schedule.give_back(cell)
        else:
            self.finish(cell, what.get("error") or None)

    def _hand_out_with_more_memory(self, cell: CellStage, share: Share, said: str) -> None:
        more = self.packing.out_of_host_memory(cell, share)
        ended = "its worker was ended, for its node ran out of memory"
        if more is not None:
            how = f"with fewer beside it, in the place of {more.cpus} CPUs"
            self.say(cell, f"{ended}; it goes on from its checkpoint {how}")
        else:  # what took the memory may be none of ours, and may be gone in a while
            self.alone[cell.id] += 1
            tries = self.alone[cell.id]
            if tries > MAX_WORKER_DEATHS:
                self.finish(cell, f"{ended}, {tries} times, with no other cell beside it: {said}")
                return
            self.rests_until[cell.id] = time.monotonic() + REST_SECONDS * tries
            how = f"after a rest (try {tries + 1} of {MAX_WORKER_DEATHS + 1})"
            self.say(cell, f"{ended}, with no other cell beside it; it goes on from its checkpoint {how}")
        self.schedule.give_back(cell)

    def on_trial_recover(self, trial_id: str, failures: int) -> None:
        cell, _ = self.given.get(trial_id, (None, None))
        if cell is not None:
            tries = f" (try {failures + 1} of {MAX_WORKER_DEATHS + 1})" if failures else ""
            self.say(cell, f"its worker is lost; it goes on from its checkpoint{tries}")

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
