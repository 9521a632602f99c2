"""What a teacher and a student have in common: a training, or what stands in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, ClassVar

from grid.plan.base import TRAINED_FACTS_BYTES, BaseStage
from grid.plan.dataset import DatasetStage
from grid.spec.model import ModelSpec
from kd.recipe import Recipe


class TrainedStage(BaseStage):
    """A model trained by a recipe on a data set."""

    is_trained: ClassVar[bool] = True
    another: ClassVar[str] = "another training"
    data: DatasetStage
    model: ModelSpec
    recipe: Recipe

    @property
    def images(self) -> DatasetStage:
        return self.data

    @property
    def needs(self) -> tuple[BaseStage, ...]:
        return (self.data,)

    @property
    def steps(self) -> tuple[int, str]:
        return (self.recipe.epochs, "epochs")

    def axes(self) -> dict[str, Any]:
        recipe = {"recipe": json.dumps(asdict(self.recipe), sort_keys=True), "view_stream": self.recipe.views.stream}
        return {**super().axes(), **recipe, **self.data.as_input}

    @property
    def as_source(self) -> dict[str, Any]:
        """As the records of what is computed from it have it."""
        args = json.dumps(self.model.args, sort_keys=True)
        return {"teacher": self.model.name, "teacher_args": args, "teacher_id": self.id}

    @property
    def alike(self) -> dict[str, Any]:
        payload = self.spec_payload()
        return {"model": payload["model"], "recipe": payload["recipe"]}

    def bytes_left(self, of: Callable[[ModelSpec], int]) -> int:
        return TRAINED_FACTS_BYTES + of(self.model)

    @property
    def predictions_bytes(self) -> int:
        """A float16 number an image and class."""
        dataset = self.data.dataset
        return 2 * dataset.info.classes * (dataset.splits["val"] + dataset.splits["test"])
