"""Of Ray Tune."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from grid.cluster.ray_internals.names import Name, check_instance

_CONTROLLERS = (
    *("_actor_manager", "_actor_to_trial", "_cleanup_cached_actors", "_failed_trials", "_maybe_reuse_cached_actor"),
    *("_pending_trials", "_running_trials", "_stopped_trials", "_trial_metadata", "_trial_to_actor", "_trials"),
    "_trials_to_cache",
)
_MANAGERS = ("_actor_task_failed", "_pending_actors_to_attrs", "_pending_actors_to_enqueued_actor_tasks", "next")


def keep_from_workers(variables: Collection[str]) -> None:
    """Variables of the environment that Tune is not to hand on to its workers."""
    Name.FORWARDED.get().difference_update(variables)


def trainable_of(function: Callable[[dict[str, Any]], None]) -> Any:
    """The class of the actor that Tune would run a function in."""
    return Name.WRAP_FUNCTION.get()(function)


def progress_callback() -> Any:
    """The class of the callback that Tune adds where none of that class is given."""
    return Name.PROGRESS.get()


class TuneController:
    """What drives the trials, and knows their workers."""

    def __init__(self, given: Any) -> None:
        """given: what a scheduler is given. Raises UserError where it has not what is used here."""
        check_instance(given, ["_tune_controller"])
        self._tune = given._tune_controller  # itself, not what wraps it for schedulers
        check_instance(self._tune, _CONTROLLERS)
        check_instance(self._manager, _MANAGERS)

    @property
    def _manager(self) -> Any:
        """Of the workers. Not kept here: Tune pickles itself, with what replaces a method of its own, but not this."""
        return self._tune._actor_manager

    @property
    def pending(self) -> Collection[Any]:
        """Trials that wait for a worker."""
        return self._tune._pending_trials  # type: ignore[no-any-return]

    @property
    def running(self) -> Collection[Any]:
        """Trials that a worker is at."""
        return self._tune._running_trials  # type: ignore[no-any-return]

    def has_worker(self, trial: Any) -> bool:
        """Whether a worker is at a trial, or is being started for it."""
        return trial in self._tune._trial_to_actor

    def end_idle_workers(self) -> None:
        """Those that are kept for the trial that may come."""
        self._tune._cleanup_cached_actors(force_all=True)

    def handle_event(self, *, seconds: float) -> None:
        """Wait so long for what happens next to a worker, and act on it."""
        self._manager.next(timeout=seconds)

    def reuse_workers(self, *, unless: Callable[[Any], bool]) -> None:
        """A worker that becomes free takes a trial only where this does not hold of it."""
        reuse = self._tune._maybe_reuse_cached_actor
        self._tune._maybe_reuse_cached_actor = lambda trial: not unless(trial) and bool(reuse(trial))

    def on_task_error(self, seen: Callable[[Any, Exception], Exception]) -> None:
        """Has what failed in a worker shown to `seen`, with the trial (None where there is none any more); what that
        returns is what Tune is told."""
        task_failed = self._manager._actor_task_failed

        def on_task_failed(tracked_actor_task: Any, exception: Exception) -> None:
            check_instance(tracked_actor_task, ["_tracked_actor"])
            trial = self._tune._actor_to_trial.get(tracked_actor_task._tracked_actor)
            task_failed(tracked_actor_task=tracked_actor_task, exception=seen(trial, exception))

        self._manager._actor_task_failed = on_task_failed

    def forget_finished_trials(self) -> None:
        """All that is kept of them."""
        for finished in (self._tune._stopped_trials, self._tune._failed_trials):
            for old in finished:
                self._tune._trials.remove(old)
                self._tune._trials_to_cache.discard(old)
                self._tune._trial_metadata.pop(old.trial_id, None)
            finished.clear()

    def forget_unneeded_workers(self) -> None:
        """Those that were asked for, and not needed once another one became free."""
        enqueued = self._manager._pending_actors_to_enqueued_actor_tasks
        for actor in enqueued.keys() - self._manager._pending_actors_to_attrs.keys():
            del enqueued[actor]
