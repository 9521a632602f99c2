"""A Tune that forgets finished trials: the storage knows what became of them."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler

from grid.cluster.memory_kills import MemoryKills


class Forgetful(FIFOScheduler):  # type: ignore[misc]
    """Runs trials in their order. Tune keeps each to the end, with its configuration, its results, their history and
    copies of it all as JSON, some 60 KB; here the finished ones go when the next one finishes. The last one stays:
    with none left, Tune would read its trials back from the storage."""

    def __init__(self, kills: MemoryKills) -> None:
        super().__init__()
        self.kills = kills
        self.controller: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (FIFOScheduler, ())  # Tune keeps copies of it to resume from

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        if self.controller is None:
            self.controller = tune_controller
            self.kills.watch(tune_controller)
            _keep_starting_workers(tune_controller._tune_controller)  # itself, not what wraps it for schedulers

    def let_idle_workers_go(self) -> None:
        """Tune keeps a worker for the trial that may come; what it holds may be what a teacher waits for."""
        if self.controller is None or self.controller._pending_trials:
            return
        self.controller._cleanup_cached_actors(force_all=True)
        if not self.controller._running_trials:
            # Without any trial Tune waits for the next one, and would not see that a worker has ended.
            self.controller._actor_manager.next(timeout=0.1)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        for finished in (tune_controller._stopped_trials, tune_controller._failed_trials):
            for old in finished:
                tune_controller._trials.remove(old)
                tune_controller._trials_to_cache.discard(old)
                tune_controller._trial_metadata.pop(old.trial_id, None)
            finished.clear()
        # Workers that were asked for, and not needed once another one became free.
        manager = tune_controller._actor_manager
        enqueued = manager._pending_actors_to_enqueued_actor_tasks
        for actor in enqueued.keys() - manager._pending_actors_to_attrs.keys():
            del enqueued[actor]


def _keep_starting_workers(controller: Any) -> None:
    """Tune gives a worker that becomes free to the trial that has waited longest, and takes away the one that is being
    started for it. Where cells are shorter than a start, none would ever get there, and one worker would do all. Here
    the free one takes the next trial, while there is one that no worker is being started for."""
    reuse = controller._maybe_reuse_cached_actor

    def maybe_reuse(trial: Trial) -> bool:
        starting = controller._trial_to_actor
        if trial in starting and any(
            other not in starting and other.placement_group_factory == trial.placement_group_factory
            for other in controller._pending_trials
        ):
            return False
        return bool(reuse(trial))

    controller._maybe_reuse_cached_actor = maybe_reuse


class Unseen(TrialProgressCallback):  # type: ignore[misc]
    """In place of the one that Tune adds, which keeps trials too; nobody is shown what it says."""

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        pass

    def log_result(self, trial: Trial, result: dict[str, Any], error: bool = False) -> None:
        pass
