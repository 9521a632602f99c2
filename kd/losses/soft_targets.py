"""Soft-target distillation.

Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F


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
    student_BC = F.log_softmax(student_logits_BC.float() / temperature, dim=-1)
    teacher_BC = F.log_softmax(teacher_logits_BC.float() / temperature, dim=-1)
    if reduction == "none":
        return F.kl_div(student_BC, teacher_BC, log_target=True, reduction="none").sum(dim=-1) * temperature**2
    return F.kl_div(student_BC, teacher_BC, log_target=True, reduction="batchmean") * temperature**2
