"""Ray's memory monitor ends a worker where a node runs out of memory. Tune knows the loss of an actor and not that, and
would end with all that runs; here it is the loss of the one trial, which whoever gave it may hand out again."""

from __future__ import annotations

from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError

from grid.cluster.ray_internals.tune import TuneController


def in_short(error: OutOfMemoryError) -> str:
    """What Ray says of such an end, without its accounts of all that was in the memory."""
    return str(error).partition("\n")[0]


class KilledForMemoryError(RayActorError):  # type: ignore[misc]
    """What Tune is told in place of Ray's OutOfMemoryError."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def __str__(self) -> str:
        return self.message


class MemoryKills:
    """Trials whose workers the monitor has ended, each with what Ray said of it, until it is taken."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def take(self, trial_id: str) -> str | None:
        return self._said.pop(trial_id, None)

    def watch(self, controller: TuneController) -> None:
        """Have them noted by a Tune controller, which ends such a trial instead of trying it again where memory was
        short a moment ago."""

        def seen(trial: Any, error: Exception) -> Exception:
            if not isinstance(error, OutOfMemoryError):
                return error
            killed = KilledForMemoryError(in_short(error))
            if trial is not None:
                self._said[trial.trial_id] = str(killed)
                trial.max_failures = 0
            return killed

        controller.on_task_error(seen)
