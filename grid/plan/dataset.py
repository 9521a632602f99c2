"""The images, read and split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from grid.plan.base import FACTS_BYTES, BaseStage, Place
from grid.spec.dataset import DatasetSpec
from grid.spec.model import ModelSpec


class DatasetStage(BaseStage):
    """Read, check and split the images; compute the statistics of the training split."""

    kind: Literal["dataset"] = "dataset"
    another: ClassVar[str] = "other images"
    dataset: DatasetSpec

    def spec_payload(self) -> dict[str, Any]:
        spec = self.dataset
        return {"source": spec.info.source, "splits": spec.splits, "split_seed": spec.split_seed}

    @property
    def place(self) -> Place:
        return "launch"

    def axes(self) -> dict[str, Any]:
        return {**super().axes(), **self.as_input}

    @property
    def as_input(self) -> dict[str, Any]:
        """As the records of what is computed from it have it, and its own."""
        return {"dataset": self.dataset.name, "dataset_id": self.id}

    def bytes_left(self, of: Callable[[ModelSpec], int]) -> int:
        info = self.dataset.info
        image = info.height * info.width * info.channels + 8  # with its label
        return FACTS_BYTES + sum(self.dataset.splits.values()) * image
