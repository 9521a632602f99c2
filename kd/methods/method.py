"""What a method of distillation is: data and one function.

Free of heavy imports, for grids are planned without torch: a method imports it where it computes its terms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Flag, auto
from typing import TYPE_CHECKING, Any, ClassVar

from kd.limits import TEMPERATURE, check_at_most

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kd.data.views.views import Labels
    from kd.draws import Key


class Needs(Flag):
    """What a method asks of the teacher."""

    NOTHING = 0
    LOGITS = auto()
    EMBEDDING = auto()
    """what its classifier is given"""
    MAPS = auto()
    """feature maps of its stages"""
    CLASSIFIER = auto()
    """the weights of its last layer"""

    def __str__(self) -> str:
        return " and ".join(str(need.name).lower() for need in self) or "nothing"


@dataclass(frozen=True)
class Seen:
    """What a model says of a batch of images, on the student's device; of a teacher without gradient."""

    logits_BC: Tensor
    """raw"""
    embedding_BD: Tensor | None = None
    """what its classifier was given, where the method needs it"""
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    """feature maps [B, D, H, W] by tap, where the method needs them"""


@dataclass(frozen=True)
class Batch:
    """Facts of a batch of images."""

    labels: Labels
    index_B: Tensor
    """the images' numbers in the training split"""
    cross_entropy: Callable[[Tensor], Tensor]
    """of logits [B, C] with the batch's labels, as the recipe smooths them, a float32 scalar"""
    progress: float
    """the share of the training that its epoch ends, from 1 / epochs to 1, for warm-ups"""
    key: Key
    """of whatever the method draws for this batch (kd/draws.py), the same where the batch is computed again"""


@dataclass(frozen=True)
class Facts:
    """What is known of a training before it starts, for what is learned beside the student."""

    classes: int
    labels_N: Tensor
    """int64, of the training split's images, on the CPU"""

    @property
    def images(self) -> int:
        return len(self.labels_N)


@dataclass(frozen=True)
class Term:
    """A part of a loss."""

    weight: float
    value: Tensor
    """a float32 scalar, mean over the batch"""


def check_temperature(temperature: float) -> None:
    """Raises ValueError."""
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature:g}")
    check_at_most("temperature", temperature, TEMPERATURE)


class Method(ABC):
    """Subclasses are frozen dataclasses: their fields are what a grid file may write, and part of an id. Their
    docstring gives the formula and its source; a field's docstring, under the field, what it means."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """raised when the same fields give other results; part of an id where it is not 1"""
    formula: ClassVar[str]
    """as a model card tells it"""
    source: ClassVar[str]
    """as a model card tells it"""
    needs: ClassVar[Needs]
    """of the teacher; what grids have no targets of is refused at planning"""
    one_label: ClassVar[bool] = False
    """the loss knows a single label an image, so that mixed images are refused"""
    several_temperatures: ClassVar[bool] = False
    """the loss uses the teacher's logits in other ways than softened once, so that only the k largest will not do"""
    batch_coupled: ClassVar[bool] = False
    """the loss is no mean over images, so that micro-batches are refused"""

    def beside(self, facts: Facts) -> nn.Module:
        """What is learned or kept beside the student: adapters as parameters, memory banks as buffers. It is trained
        and saved with the student, and is no part of the model that comes of it. Nothing, unless a method says so.

        Drawn from a seed of its own (kd/training/learner.py), so that a student starts from the baseline's weights."""
        from torch import nn

        return nn.Module()

    @property
    def has_beside(self) -> bool:
        return type(self).beside is not Method.beside

    @abstractmethod
    def terms(self, student: Seen, teacher: Seen, batch: Batch, beside: nn.Module) -> dict[str, Term]:
        """The loss's parts by name, the same names for each batch, cross-entropy among them; the loss is the sum of
        their weighted values, in this order. Computed in float32 and in log space, finite wherever logits are.
        beside: what `beside` made; it stands outside of autocast."""

    @property
    def softened_at(self) -> float:
        """The temperature at which the teacher's logits are softened: where only the k largest are kept, the others
        stand for it alone."""
        return 1.0

    @property
    def params(self) -> dict[str, Any]:
        """Its fields, each spelled out."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
