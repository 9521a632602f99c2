"""What a teacher says of the views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from grid.identity import without_defaults
from grid.plan.base import FACTS_BYTES, BaseStage, Place
from grid.plan.dataset import DatasetStage
from grid.plan.teacher import TeacherStage
from grid.spec.model import ModelSpec
from kd.data.views.policy import ViewPolicy
from kd.recipe import LogitsDtype, LogitsFormat

BYTES: dict[LogitsDtype, int] = {"float16": 2, "float32": 4}


class LogitsStage(BaseStage):
    """A teacher's logits for the views of one policy, whatever the stream, and for the plain val and test images."""

    kind: Literal["logits"] = "logits"
    grows: ClassVar[bool] = True
    another: ClassVar[str] = "other logits"
    is_for_others: ClassVar[bool] = True
    teacher: TeacherStage
    views: ViewPolicy
    stored_as: LogitsFormat = LogitsFormat()
    epochs: tuple[int, ...]
    """How many are needed of each stream of random views, the stream's number being the place. Where the policy has
    fewer distinct views than that, every view of every sample is kept instead, and serves all streams and epochs. The
    id holds neither: it is the same logits, and a longer schedule or another stream adds to what is stored."""

    def spec_payload(self) -> dict[str, Any]:
        return {"views": without_defaults(self.views), "stored_as": without_defaults(self.stored_as)}

    def inputs(self) -> dict[str, str]:
        return {"dataset": self.teacher.data.id, "teacher": self.teacher.id}

    @property
    def images(self) -> DatasetStage:
        return self.teacher.data

    @property
    def sources(self) -> tuple[TeacherStage, ...]:
        return (self.teacher,)

    @property
    def needs(self) -> tuple[BaseStage, ...]:
        return (self.teacher.data, self.teacher)

    @property
    def place(self) -> Place:
        return "pool"

    @property
    def parts(self) -> int:
        return len(self.units)

    @property
    def steps(self) -> tuple[int, str]:
        return (len(self.units), "views")

    @property
    def planned_files(self) -> tuple[str, ...]:
        return tuple(unit.file for unit in self.units)

    def axes(self) -> dict[str, Any]:
        return {**super().axes(), **self.teacher.as_source, **self.teacher.data.as_input}

    def multiply_adds(self, of: Callable[[ModelSpec], int]) -> float:
        return float(of(self.teacher.model) * self.teacher.data.dataset.splits["train"] * len(self.units))

    def bytes_left(self, of: Callable[[ModelSpec], int]) -> int:
        dataset = self.teacher.data.dataset
        evaluated = dataset.splits["val"] + dataset.splits["test"]
        rows = len(self.units) * dataset.splits["train"] + evaluated
        return FACTS_BYTES + rows * _bytes_of_a_row(self.stored_as, dataset.info.classes)

    @property
    def keeps_every_view(self) -> bool:
        return self.views.distinct is not None and self.views.distinct < sum(self.epochs)

    @cached_property
    def units(self) -> tuple[LogitsUnit, ...]:
        """What has to be stored, in the order in which cells ask for it."""
        if self.keeps_every_view:
            return tuple(LogitsUnit(view=number) for number in range(self.views.distinct or 0))
        drawn = [(e, s) for s, count in enumerate(self.epochs) for e in range(count)]
        return tuple(LogitsUnit(stream=s, epoch=e) for e, s in sorted(drawn))


@dataclass(frozen=True)
class LogitsUnit:
    """One pass of the teacher over the training images: an epoch of a stream of views, or one numbered view."""

    stream: int = 0
    epoch: int = 0
    view: int | None = None

    @property
    def file(self) -> str:
        if self.view is not None:
            return f"view-{self.view:05d}.safetensors"
        return f"stream-{self.stream:03d}-epoch-{self.epoch:05d}.safetensors"


def _bytes_of_a_row(stored_as: LogitsFormat, classes: int) -> int:
    each, k = BYTES[stored_as.dtype], stored_as.top_k
    if k is None or k >= classes:
        return each * classes
    place = 1 if classes <= 2**8 else 2 if classes <= 2**15 else 4
    return k * (each + place) + 2 * each  # mean and variance of the rest
