"""A teacher, trained or as it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from grid.identity import without_defaults
from grid.plan.base import TRAINING_PASSES, Place
from grid.plan.models import model_payload
from grid.plan.trained import TrainedStage
from grid.spec.model import ModelSpec, TeacherSpec


class TeacherStage(TrainedStage):
    """Train a teacher on the labels, or take it as its checkpoint has it."""

    kind: Literal["teacher"] = "teacher"
    model: TeacherSpec

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
    def is_given(self) -> bool:
        return self.model.is_given

    @property
    def place(self) -> Place:
        return "pool" if self.is_given else "group"

    @property
    def called(self) -> str:
        return "given teacher" if self.is_given else super().called

    def axes(self) -> dict[str, Any]:
        return {**super().axes(), **self.as_source, "seed": self.seed}

    def multiply_adds(self, of: Callable[[ModelSpec], int]) -> float:
        splits = self.data.dataset.splits
        if self.model.is_given:
            return float(of(self.model) * (splits["val"] + splits["test"]))
        return float(TRAINING_PASSES * of(self.model) * splits["train"] * self.recipe.epochs)
