"""What all stages have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from grid.contract.files.layout import CALLED, stage_folder
from grid.identity import stage_id
from grid.spec.strict import Strict

if TYPE_CHECKING:
    from grid.plan.dataset import DatasetStage
    from grid.plan.stages import Trainable
    from grid.spec.model import ModelSpec

# A training step is a forward pass and a backward pass of about twice its cost.
TRAINING_PASSES = 3

# Beside weights, logits and images: the record, the curve, what W&B keeps of a run; in blocks of a disk.
FACTS_BYTES, TRAINED_FACTS_BYTES = 12 * 2**10, 32 * 2**10

# Raise a number when what that stage computes from the same spec changes: its results, and all that is built on
# them, then have new ids, and old ones are left alone.
STAGE_VERSIONS = {"dataset": 2, "teacher": 2, "logits": 2, "cell": 2}


# Where a stage runs: in the launching process, in a group of workers that train one model together, or in the pool,
# where each stage has a worker.
Place = Literal["launch", "group", "pool"]


class BaseStage(Strict, ABC):
    kind: str
    is_trained: ClassVar[bool] = False
    """And so keeps checkpoints while it runs."""
    grows: ClassVar[bool] = False
    """What it leaves may be added to, once more of it is asked for."""
    is_for_others: ClassVar[bool] = False
    """It is computed only where a stage that is not done needs it."""
    another: ClassVar[str]
    """What another of the same id is called, as it was computed a second time."""
    worker: ClassVar[Literal["teacher", "cell"]] = "teacher"
    """Of which of the grid's resources its worker holds a share."""

    @abstractmethod
    def spec_payload(self) -> dict[str, Any]:
        """What is computed, apart from what it is computed from."""

    def inputs(self) -> dict[str, str]:
        """Ids of the stages this one is computed from, by role."""
        return {}

    @property
    def images(self) -> DatasetStage | None:
        """The data set that it is computed from."""
        return None

    @property
    def sources(self) -> tuple[Trainable, ...]:
        """The models whose weights it is computed from."""
        return ()

    @property
    def computed_from(self) -> tuple[DatasetStage | Trainable, ...]:
        """The stages whose contents its record names: it is done with those alone."""
        return (*(() if self.images is None else (self.images,)), *self.sources)

    @property
    def needs(self) -> tuple[BaseStage, ...]:
        """The stages that have to be done before this one may run."""
        return ()

    @property
    @abstractmethod
    def place(self) -> Place:
        """Where it runs."""

    @property
    def parts(self) -> int:
        """How many workers may share its work."""
        return 1

    @property
    def is_given(self) -> bool:
        """Whether it takes a model as it is."""
        return False

    @property
    def called(self) -> str:
        """What kind of stage it is, for people."""
        return CALLED[self.kind]

    @property
    def steps(self) -> tuple[int, str] | None:
        """What it is done in and tells its progress in: how many, and of what; None for what is done in one go."""
        return None

    @property
    def planned_files(self) -> tuple[str, ...]:
        """Files that are asked for by name, of one that grows."""
        return ()

    def axes(self) -> dict[str, Any]:
        """Where it stands in a grid, and what it is computed from, as its record has it."""
        return {"stage_id": self.id, "kind": self.kind}

    @property
    def alike(self) -> dict[str, Any]:
        """Stages that have this in common take equally long."""
        return {"kind": self.kind}

    @property
    def memory_facts(self) -> dict[str, Any]:
        """All that the memory of its worker depends on."""
        return {"stage": self.id}

    def multiply_adds(self, of: Callable[[ModelSpec], int]) -> float:
        """What it computes on models; of: the multiply-adds of one image in a forward pass."""
        return 0.0

    @abstractmethod
    def bytes_left(self, of: Callable[[ModelSpec], int]) -> int:
        """What it leaves on the storage, to some per cent, but for predictions; of: the bytes of a model's weights."""

    @property
    def predictions_bytes(self) -> int:
        """What it leaves beside that where predictions are kept."""
        return 0

    @cached_property
    def payload(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "version": STAGE_VERSIONS[self.kind],
            "spec": self.spec_payload(),
            "inputs": self.inputs(),
        }

    @cached_property
    def id(self) -> str:
        return stage_id(self.payload)

    @property
    def folder(self) -> str:
        """Where its outputs live, relative to the storage."""
        return stage_folder(self.kind, self.id)
