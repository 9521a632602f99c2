"""A teacher, trained or as it is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, ClassVar, Literal

from grid.identity import without_defaults
from grid.plan.base import TRAINED_FACTS_BYTES, TRAINING_PASSES, BaseStage
from grid.plan.dataset import DatasetStage
from grid.plan.models import model_payload
from grid.spec.model import ModelSpec, TeacherSpec
from kd.recipe import Recipe


class TeacherStage(BaseStage):
    """Train a teacher on the labels, or take it as its checkpoint has it."""

    kind: Literal["teacher"] = "teacher"
    is_trained: ClassVar[bool] = True
    data: DatasetStage
    model: TeacherSpec
    recipe: Recipe

    def spec_payload(self) -> dict[str, Any]:
        model = model_payload(self.model, self.data.dataset)
        if self.model.is_given:
            # Of its recipe only this shows, in its logits.
            return {"model": model, "given": True, "recipe": {"precision": self.recipe.precision}}
        return {"model": model, "recipe": without_defaults(self.recipe), "seed": self.model.seed}

    def inputs(self) -> dict[str, str]:
        return {"dataset": self.data.id}

    @property
    def seed(self) -> int:
        return self.model.seed

    @property
    def images(self) -> DatasetStage:
        return self.data

    @property
    def needs(self) -> tuple[BaseStage, ...]:
        return (self.data,)

    @property
    def is_given(self) -> bool:
        return self.model.is_given

    @property
    def called(self) -> str:
        return "given teacher" if self.is_given else super().called

    @property
    def steps(self) -> tuple[int, str]:
        return (self.recipe.epochs, "epochs")

    def axes(self) -> dict[str, Any]:
        trained = {"seed": self.model.seed, **recipe_axes(self.recipe)}
        return {**super().axes(), **self.as_source, **trained, **self.data.as_input}

    @property
    def as_source(self) -> dict[str, Any]:
        """As the records of what is computed from it have it."""
        args = json.dumps(self.model.args, sort_keys=True)
        return {"teacher": self.model.name, "teacher_args": args, "teacher_id": self.id}

    @property
    def alike(self) -> dict[str, Any]:
        payload = self.spec_payload()
        return {"model": payload["model"], "recipe": payload["recipe"]}

    def multiply_adds(self, of: Callable[[ModelSpec], int]) -> float:
        splits = self.data.dataset.splits
        if self.model.is_given:
            return float(of(self.model) * (splits["val"] + splits["test"]))
        return float(TRAINING_PASSES * of(self.model) * splits["train"] * self.recipe.epochs)

    def bytes_left(self, of: Callable[[ModelSpec], int]) -> int:
        return TRAINED_FACTS_BYTES + of(self.model)


def recipe_axes(recipe: Recipe) -> dict[str, Any]:
    return {"recipe": json.dumps(asdict(recipe), sort_keys=True), "view_stream": recipe.views.stream}
