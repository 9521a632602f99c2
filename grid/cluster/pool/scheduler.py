"""A Tune that forgets finished trials: the storage knows what became of them."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from grid.cluster.nodes.memory_kills import MemoryKills
from grid.cluster.ray_internals.tune import TuneController, progress_callback


class ForgettingScheduler(FIFOScheduler):  # type: ignore[misc]
    """Runs trials in their order. Tune keeps each to the end, with its configuration, its results, their history and
    copies of it all as JSON, some 60 KB; here the finished ones go when the next one finishes. The last one stays:
    with none left, Tune would read its trials back from the storage."""

    def __init__(self, kills: MemoryKills) -> None:
        super().__init__()
        self.kills = kills
        self.controller: TuneController | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (FIFOScheduler, ())  # Tune keeps copies of it to resume from

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        if self.controller is None:
            self.controller = TuneController(tune_controller)
            self.kills.watch(self.controller)
            _keep_starting_workers(self.controller)

    def let_idle_workers_go(self) -> None:
        """Tune keeps a worker for the trial that may come; what it holds may be what a teacher waits for."""
        if self.controller is None or self.controller.pending:
            return
        self.controller.end_idle_workers()
        if not self.controller.running:
            # Without any trial Tune waits for the next one, and would not see that a worker has ended.
            self.controller.handle_event(seconds=0.1)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        assert self.controller is not None  # every trial was added
        self.controller.forget_finished_trials()
        self.controller.forget_unneeded_workers()


def _keep_starting_workers(controller: TuneController) -> None:
    """Tune gives a worker that becomes free to the trial that has waited longest, and takes away the one that is being
    started for it. Where cells are shorter than a start, none would ever get there, and one worker would do all. Here
    the free one takes the next trial, while there is one that no worker is being started for."""

    def awaits_its_own(trial: Trial) -> bool:
        return controller.has_worker(trial) and any(
            not controller.has_worker(other) and other.placement_group_factory == trial.placement_group_factory
            for other in controller.pending
        )

    controller.reuse_workers(unless=awaits_its_own)


class SilentReporter(progress_callback()):  # type: ignore[misc]
    """In place of the one that Tune adds, which keeps trials too; nobody is shown what it says."""

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        pass

    def log_result(self, trial: Trial, result: dict[str, Any], error: bool = False) -> None:
        pass
