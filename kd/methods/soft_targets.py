"""Soft targets, which everybody means by knowledge distillation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from kd.methods.method import Batch, Method, Seen, Term, check_temperature


@dataclass(frozen=True, kw_only=True)
class SoftTargets(Method):
    """alpha T^2 KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) CE.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.
    temperature: T. alpha: the weight of the *soft* term (repositories disagree), from 0 to 1.
    """

    name: ClassVar[str] = "kd"
    formula: ClassVar[str] = "alpha * temperature^2 * KL(teacher || student) + (1 - alpha) * CE"
    source: ClassVar[str] = "Hinton et al., 2015"

    temperature: float = 4.0
    alpha: float = 0.5

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if not (math.isfinite(self.alpha) and 0 <= self.alpha <= 1):
            raise ValueError(f"alpha must be from 0 to 1, got {self.alpha:g}")

    def terms(self, student: Seen, teacher: Seen, batch: Batch) -> dict[str, Term]:
        from kd.losses.soft_targets import soft_target_loss

        soft = soft_target_loss(student.logits_BC, teacher.logits_BC, temperature=self.temperature)
        return {
            "kd": Term(self.alpha, soft),
            "ce": Term(1 - self.alpha, batch.cross_entropy(student.logits_BC)),
        }

    @property
    def softened_at(self) -> float:
        return self.temperature
