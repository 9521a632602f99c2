"""What a method of distillation is: data and one function.

Free of heavy imports, for grids are planned without torch: a method imports it where it computes its terms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from kd.limits import TEMPERATURE, check_at_most

if TYPE_CHECKING:
    from torch import Tensor

    from kd.data.views.views import Labels


@dataclass(frozen=True)
class Seen:
    """What a model says of a batch of images: logits_BC, raw, on the student's device."""

    logits_BC: Tensor


@dataclass(frozen=True)
class Batch:
    """Facts of a batch. cross_entropy: of logits [B, C] with the batch's labels, as the recipe smooths them, a float32
    scalar. progress: the share of the training that its epoch ends, from 1 / epochs to 1, for warm-ups."""

    labels: Labels
    cross_entropy: Callable[[Tensor], Tensor]
    progress: float


@dataclass(frozen=True)
class Term:
    """A part of a loss: value, a float32 scalar, mean over the batch."""

    weight: float
    value: Tensor


def check_temperature(temperature: float) -> None:
    """Raises ValueError."""
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature:g}")
    check_at_most("temperature", temperature, TEMPERATURE)


class Method(ABC):
    """Subclasses are frozen dataclasses: their fields are what a grid file may write, and part of an id. Their
    docstring gives the formula, its source and what the fields mean.

    version: raised when the same fields give other results; part of an id where it is not 1.
    formula, source: as a model card tells them.
    one_label: the loss knows a single label an image, so that mixed images are refused. several_temperatures: it uses
    the teacher's logits in other ways than softened once, so that only the k largest of them will not do.
    batch_coupled: it is no mean over images, so that micro-batches are refused.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    name: ClassVar[str]
    version: ClassVar[int] = 1
    formula: ClassVar[str]
    source: ClassVar[str]
    one_label: ClassVar[bool] = False
    several_temperatures: ClassVar[bool] = False
    batch_coupled: ClassVar[bool] = False

    @abstractmethod
    def terms(self, student: Seen, teacher: Seen, batch: Batch) -> dict[str, Term]:
        """The loss's parts by name, cross-entropy among them; the loss is the sum of their weighted values, in this
        order. Computed in float32 and in log space, finite wherever logits are."""

    @property
    def softened_at(self) -> float:
        """The temperature at which the teacher's logits are softened: where only the k largest are kept, the others
        stand for it alone."""
        return 1.0

    @property
    def params(self) -> dict[str, Any]:
        """Its fields, each spelled out."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
