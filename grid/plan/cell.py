"""A student, alone or with a teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from grid.identity import without_defaults
from grid.plan.base import TRAINING_PASSES, BaseStage, Place
from grid.plan.logits import LogitsStage
from grid.plan.models import model_payload
from grid.plan.teacher import TeacherStage
from grid.plan.trained import TrainedStage
from grid.spec.grid import Mode, Targets
from grid.spec.method import OF_SHORTHAND, SHORTHAND, Setting
from grid.spec.model import ModelSpec


class CellStage(TrainedStage):
    """Train a student, alone (baseline: teacher and setting are None) or with a teacher, whose logits are cached or,
    where `logits` is None, computed by the cell itself."""

    kind: Literal["cell"] = "cell"
    worker: ClassVar[Literal["teacher", "cell"]] = "cell"
    seed: int
    mode: Mode
    setting: Setting | None = None
    teacher: TeacherStage | None = None
    logits: LogitsStage | None = None

    @property
    def targets(self) -> Targets | None:
        if self.teacher is None:
            return None
        return "online" if self.runs_its_teacher else "cached"

    @property
    def how(self) -> dict[str, Any]:
        """Its setting, as rows and records have it; all None of a baseline. params: JSON, of all; those that a grid may
        say once for kd stand beside it."""
        if self.setting is None:
            return dict.fromkeys(("method", "temperature", "alpha", "params"))
        params = self.setting.params
        two = {name: params[name] if self.setting.method == OF_SHORTHAND else None for name in SHORTHAND}
        return {"method": self.setting.method, **two, "params": json.dumps(params, sort_keys=True)}

    def spec_payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "model": model_payload(self.model, self.data.dataset),
            "recipe": without_defaults(self.recipe),
            "seed": self.seed,
            "mode": self.mode,
        }
        return payload if self.setting is None else payload | self.setting.payload()

    def inputs(self) -> dict[str, str]:
        inputs = {"dataset": self.data.id}
        if self.logits is not None:
            inputs["logits"] = self.logits.id
        elif self.teacher is not None:
            inputs["teacher"] = self.teacher.id
        return inputs

    @property
    def sources(self) -> tuple[TeacherStage, ...]:
        return () if self.teacher is None else (self.teacher,)

    @property
    def needs(self) -> tuple[BaseStage, ...]:
        taught_by = self.logits or self.teacher
        return super().needs if taught_by is None else (*super().needs, taught_by)

    @property
    def place(self) -> Place:
        return "pool"

    @property
    def called(self) -> str:
        return self.mode

    @property
    def runs_its_teacher(self) -> bool:
        return self.teacher is not None and self.logits is None

    def axes(self) -> dict[str, Any]:
        student = {"student": self.model.name, "student_args": json.dumps(self.model.args, sort_keys=True)}
        logits = {} if self.logits is None else {"logits_id": self.logits.id}
        source = {} if self.teacher is None else self.teacher.as_source
        how = {"mode": self.mode, **self.how, "seed": self.seed, "targets": self.targets}
        return {**super().axes(), **student, **how, **logits, **source}

    @property
    def alike(self) -> dict[str, Any]:
        key = super().alike
        return {**key, "teacher": self.teacher.id} if self.teacher is not None and self.runs_its_teacher else key

    @property
    def memory_facts(self) -> dict[str, Any]:
        """The model, the recipe, the images, a teacher in the same process, and what is learned beside the student."""
        recipe = without_defaults(self.recipe)
        for name in ("epochs", "learning_rate", "weight_decay", "warmup_epochs", "evaluate_every"):
            recipe.pop(name, None)
        facts = {"model": model_payload(self.model, self.data.dataset), "recipe": recipe, "dataset": self.data.id}
        if self.teacher is not None and self.runs_its_teacher:
            facts["teacher"] = model_payload(self.teacher.model, self.data.dataset)
        if self.setting is not None and self.setting.built.has_beside:
            facts["setting"] = self.setting.payload()
        return facts

    def multiply_adds(self, of: Callable[[ModelSpec], int]) -> float:
        passes = TRAINING_PASSES * of(self.model)
        if self.teacher is not None and self.runs_its_teacher:
            passes += of(self.teacher.model)
        return float(passes * self.data.dataset.splits["train"] * self.recipe.epochs)
