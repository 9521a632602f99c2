"""Soft targets, which everybody means by knowledge distillation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from kd.methods.method import Batch, Method, Needs, Seen, Term, check_temperature

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class SoftTargets(Method):
    """alpha T^2 KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) CE.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.
    """

    name: ClassVar[str] = "kd"
    formula: ClassVar[str] = "alpha * temperature^2 * KL(teacher || student) + (1 - alpha) * CE"
    source: ClassVar[str] = "Hinton et al., 2015"
    needs: ClassVar[Needs] = Needs.LOGITS

    temperature: float = 4.0
    """T"""
    alpha: float = 0.5
    """the weight of the *soft* term (repositories disagree), from 0 to 1"""

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if not (math.isfinite(self.alpha) and 0 <= self.alpha <= 1):
            raise ValueError(f"alpha must be from 0 to 1, got {self.alpha:g}")

    def terms(self, student: Seen, teacher: Seen, batch: Batch, beside: nn.Module) -> dict[str, Term]:
        soft = soft_target_loss(student.logits_BC, teacher.logits_BC, temperature=self.temperature)
        return {
            "kd": Term(self.alpha, soft),
            "ce": Term(1 - self.alpha, batch.cross_entropy(student.logits_BC)),
        }

    @property
    def softened_at(self) -> float:
        return self.temperature


def soft_target_loss(
    student_logits_BC: Tensor,
    teacher_logits_BC: Tensor,
    *,
    temperature: float,
    reduction: Literal["batchmean", "none"] = "batchmean",
) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), summed over classes, in nats.

    T^2 keeps the gradient's scale as T grows. reduction: "batchmean" averages over the batch (a float32 scalar; 'mean'
    would divide by the number of classes as well), "none" keeps one loss a sample (float32 [B]). Inputs [B, C] of any
    float type.
    """
    from torch.nn import functional as F

    student_BC = F.log_softmax(student_logits_BC.float() / temperature, dim=-1)
    teacher_BC = F.log_softmax(teacher_logits_BC.float() / temperature, dim=-1)
    if reduction == "none":
        return F.kl_div(student_BC, teacher_BC, log_target=True, reduction="none").sum(dim=-1) * temperature**2
    return F.kl_div(student_BC, teacher_BC, log_target=True, reduction="batchmean") * temperature**2
