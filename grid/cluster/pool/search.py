"""Run the stages of the pool with Ray Tune: one trial a stage, handed out by the schedule, in worker processes that are
reused. A stage that several workers may share, as a teacher's logits, gets more trials where there is room for them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from grid.cluster.ledger import Ledger
from grid.cluster.nodes.capacity import Share
from grid.cluster.nodes.fleet import Fleet
from grid.cluster.nodes.memory_kills import MemoryKills
from grid.cluster.nodes.packing import Packing
from grid.cluster.pool.scheduler import ForgettingScheduler, SilentReporter
from grid.cluster.pool.trial_worker import Worker
from grid.cluster.ray_internals.tune import keep_from_workers
from grid.cluster.retries import TRIES, is_given_up, next_try, rest_seconds
from grid.cluster.teachers.lanes import Lanes
from grid.plan import Stage, stage_to_json
from grid.plan.schedule import Schedule
from grid.store.lease import Leases
from grid.store.store import Store
from grid.work.execute import Runtime

CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}
ELSEWHERE_SECONDS = 2.0


@dataclass(frozen=True)
class Pool:
    """What the pool's stages are run with."""

    schedule: Schedule
    store: Store
    fleet: Fleet
    packing: Packing
    lanes: Lanes
    """of groups, whose workers take their part of the nodes"""
    ledger: Ledger
    runtime: Runtime


def run_pool(pool: Pool, *, scratch: str) -> None:
    """Run every stage of the pool that the schedule hands out; returns when it has none left. Must be called in the
    main thread."""
    # As many trials as the search gives may wait for a worker; with one of its own, Tune would keep a single one.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "1000000"
    # Tune would hand them on by way of a log that anybody may read; workers have their node's own environment.
    keep_from_workers(CREDENTIALS)
    kills = MemoryKills()
    scheduler = ForgettingScheduler(kills)
    search = _Search(pool, make_room=scheduler.let_idle_workers_go, killed=kills.take)
    tuner = tune.Tuner(
        tune.with_resources(Worker, _share),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=scheduler,
            num_samples=-1,  # until the search says so: a stage may be handed out again
            reuse_actors=True,
            trial_name_creator=lambda trial: f"stage-{trial.trial_id}",
            trial_dirname_creator=lambda trial: f"stage-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="pool",
            storage_path=scratch,
            failure_config=tune.FailureConfig(max_failures=TRIES - 1),
            callbacks=[SilentReporter(), _Lost(search)],
            verbose=0,
        ),
    )
    tuner.fit()


def _share(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    return tune.PlacementGroupFactory([config["share"]])


class _Lost(tune.Callback):  # type: ignore[misc]
    """Says that a stage goes on after its worker was lost."""

    def __init__(self, search: _Search) -> None:
        self.search = search

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.search.on_trial_recover(trial.trial_id, trial.num_failures)


@dataclass(frozen=True)
class _HandedOut:
    """What was handed out to a trial."""

    stage: Stage
    share: Share
    part: int
    """0 of who does the stage; of those who help, which."""


class _Search(Searcher):  # type: ignore[misc]
    """Gives Tune the next ready stage whenever there is room for it, and the ledger what became of it."""

    def __init__(self, pool: Pool, *, make_room: Callable[[], None], killed: Callable[[str], str | None]) -> None:
        super().__init__()
        self.schedule, self.fleet, self.packing, self.lanes = pool.schedule, pool.fleet, pool.packing, pool.lanes
        self.ledger, self.make_room, self.killed = pool.ledger, make_room, killed
        self.store, self.leases = pool.store, Leases(pool.store, pool.runtime.launch)
        self.common = {"storage": pool.store.url, "runtime": asdict(pool.runtime)}
        self.handed_out: dict[str, _HandedOut] = {}
        self.helped: Counter[str] = Counter()
        self.looked = -ELSEWHERE_SECONDS
        self.alone: Counter[str] = Counter()
        self.rests_until: dict[str, float] = {}
        self.elsewhere: set[str] = set()
        self.has_company = False  # of other launches

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if not self.schedule.is_left("pool"):
            return Searcher.FINISHED
        if not self._has_room(self.fleet.capacity().cell):
            self.make_room()
        self._look_elsewhere()
        measured: set[str] = set()
        resting = {stage for stage, until in self.rests_until.items() if time.monotonic() < until}
        while (stage := self.schedule.next_in_pool(but=self.elsewhere | measured | resting)) is not None:
            share = self.packing.share_of(stage)
            if share is None:
                measured.add(stage.id)
            elif not self._has_room(share):
                return None
            # A worker finds out as well: only where other launches are about is the look worth its while.
            elif self.has_company and self.leases.other(stage.folder) is not None:
                self.elsewhere.add(stage.id)
            elif self.ledger.start(stage):
                return self._give(trial_id, _HandedOut(stage, share, part=0))
        return self._help(trial_id)

    def _help(self, trial_id: str) -> Any:
        """Another worker for a stage that is being done, and that has parts for one; None where there is none."""
        for handed in [*self.handed_out.values()]:
            stage, share = handed.stage, handed.share
            if handed.part == 0 and self.helped[stage.id] + 1 < self._parts(handed) and self._has_room(share):
                self.helped[stage.id] += 1
                return self._give(trial_id, _HandedOut(stage, share, part=self.helped[stage.id]))
        return None

    def _parts(self, handed: _HandedOut) -> int:
        return min(handed.stage.parts, self.fleet.capacity().room_for(handed.share))

    def _give(self, trial_id: str, handed: _HandedOut) -> dict[str, Any]:
        self.handed_out[trial_id] = handed
        stage, share = handed.stage, handed.share
        return {
            "stage": stage_to_json(stage),
            "part": handed.part,
            "parts": max(self._parts(handed), handed.part + 1),
            "share": share.as_dict(),
            "threads": self.fleet.capacity().share(stage.worker).cpus,
            "shares_gpu": share.is_part_of_a_gpu,
            "passed_over": self.leases.silent(stage.folder),
            **self.common,
        }

    def _has_room(self, share: Share) -> bool:
        running = [handed.share for handed in self.handed_out.values()]
        return self.fleet.capacity().has_room(share, running=running, busy_lanes=self.lanes.busy)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        handed, killed = self.handed_out.pop(trial_id, None), self.killed(trial_id)
        if handed is None or handed.part > 0:  # whatever a helper has not done, the others do
            return
        stage, share, what = handed.stage, handed.share, result or {}
        self.helped.pop(stage.id, None)
        if what.get("peak"):
            self.packing.took(stage, int(what["peak"]))
        if killed is not None:
            self._hand_out_with_more_memory(stage, share, killed)
        elif error:
            self.ledger.finish(stage, f"its worker failed {TRIES} times (out of memory?); see Ray's logs")
        elif what.get("crowded"):
            more = self.packing.out_of_memory(stage, share)
            self.ledger.say(stage, f"no memory left beside others on the GPU; it gets {more.gpus:g} of one from now on")
            self.ledger.give_back(stage)
        elif what.get("gave_way"):
            self.elsewhere.add(stage.id)
            self.has_company = True
            self.ledger.give_back(stage)
        else:
            self.ledger.finish(stage, what.get("error") or None)

    def _hand_out_with_more_memory(self, stage: Stage, share: Share, said: str) -> None:
        more = self.packing.out_of_host_memory(stage, share)
        ended = "its worker was ended, for its node ran out of memory"
        if more is not None:
            how = f"with fewer beside it, in the place of {more.cpus} CPUs"
            self.ledger.say(stage, f"{ended}; it goes on from its checkpoint {how}")
        else:  # what took the memory may be none of ours, and may be gone in a while
            self.alone[stage.id] += 1
            lost = self.alone[stage.id]
            if is_given_up(lost):
                self.ledger.finish(stage, f"{ended}, {lost} times, with no other stage beside it: {said}")
                return
            self.rests_until[stage.id] = time.monotonic() + rest_seconds(lost)
            how = f"after a rest ({next_try(lost)})"
            self.ledger.say(stage, f"{ended}, with no other stage beside it; it goes on from its checkpoint {how}")
        self.ledger.give_back(stage)

    def on_trial_recover(self, trial_id: str, failures: int) -> None:
        handed = self.handed_out.get(trial_id)
        if handed is not None and handed.part == 0:
            tries = f" ({next_try(failures)})" if failures else ""
            self.ledger.say(handed.stage, f"its worker is lost; it goes on from its checkpoint{tries}")

    def _look_elsewhere(self) -> None:
        """Stages that another launch is at, now and then: some are done by now, and some it has given up."""
        if not self.elsewhere or time.monotonic() - self.looked < ELSEWHERE_SECONDS:
            return
        self.looked = time.monotonic()
        for stage in self.schedule.plan.stages:
            if stage.id in self.elsewhere and self.leases.other(stage.folder) is None:
                self.elsewhere.discard(stage.id)
                if self.store.is_done(stage):
                    self.ledger.finish(stage, None)

    # Tune keeps copies of its search algorithm to resume from; here the store knows what is done.

    def __reduce__(self) -> tuple[Any, ...]:
        return (Searcher, ())

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass
