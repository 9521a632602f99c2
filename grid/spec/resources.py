"""What the workers of a grid hold while they run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from grid.spec.strict import Strict, shortened
from kd.limits import WORKERS, check_at_most


def _few_to_many(workers: Any) -> Any:
    both = workers if isinstance(workers, list | tuple) else (workers, workers)
    if len(both) != 2 or not all(type(number) is int for number in both) or not 1 <= both[0] <= both[1]:
        raise ValueError(
            f"{shortened(workers)}: expected a number of workers, or the fewest and the most, such as [1, 4]"
        )
    check_at_most("teacher_workers", both[1], WORKERS)
    return tuple(both) if isinstance(workers, list) else workers


def _gpus_or_auto(gpus: Any) -> Any:
    if gpus not in (None, "auto") and (type(gpus) not in (int, float) or gpus < 0):
        raise ValueError(f"{shortened(gpus)}: expected a number of GPUs, such as 0.25, or auto")
    return gpus


class Resources(Strict):
    """What one worker holds while it runs. Nothing here changes a result's id."""

    teacher_workers: Annotated[int | tuple[int, int], BeforeValidator(_few_to_many)] = 1
    """Data-parallel workers a teacher; two numbers: from the first to the second, as nodes come and go."""
    cpus_per_teacher_worker: int = Field(default=1, ge=1, le=WORKERS)
    gpus_per_teacher_worker: float | None = Field(default=None, ge=0, le=WORKERS)
    """None means one GPU where Ray has GPUs, none otherwise."""
    cpus_per_cell: int = Field(default=1, ge=1, le=WORKERS)
    gpus_per_cell: Annotated[float | Literal["auto"] | None, BeforeValidator(_gpus_or_auto)] = None
    """None means a quarter of a GPU where Ray has GPUs, none otherwise; "auto" measures the memory each student needs
    and packs as many cells on a GPU as fit."""
    concurrency: int | None = Field(default=None, ge=1, le=WORKERS)
    """At most this many cells at a time (None: what fits)."""
    checkpoint_minutes: float = Field(default=10.0, gt=0, le=WORKERS)
    """A running stage saves this often, besides after each epoch."""
    stall_minutes: float = Field(default=60.0, gt=0, le=WORKERS)
    """One that finishes no step, batch, picture or file for so long has failed."""
    deterministic: bool = False
    """On a GPU, ask torch for deterministic algorithms; the record says whether they were used (a CPU is always)."""
    keep_predictions: bool = True
    """Keep what each teacher and cell says of the val and test images: accuracy per class and all that looks at single
    images is computed of it."""

    @field_validator("gpus_per_teacher_worker", "gpus_per_cell")
    @classmethod
    def _whole_or_a_part_of_one(cls, gpus: float | str | None) -> float | str | None:
        if isinstance(gpus, float):
            check_at_most("the number of GPUs", gpus, WORKERS)
            if gpus > 1 and not gpus.is_integer():
                raise ValueError(f"{gpus:g} GPUs: more than one must be a whole number")
        return gpus

    @property
    def workers(self) -> tuple[int, int]:
        """Fewest and most of a teacher."""
        return self.teacher_workers if isinstance(self.teacher_workers, tuple) else (self.teacher_workers,) * 2
