"""Soft-target distillation.

Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def soft_target_loss(student_logits_BC: Tensor, teacher_logits_BC: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), summed over classes, averaged over the batch, in nats.

    T^2 keeps the gradient's scale as T grows. The sum over classes is what 'batchmean' gives; 'mean' would divide by
    the number of classes as well. Inputs [B, C] of any float type; returns a float32 scalar.
    """
    student_BC = F.log_softmax(student_logits_BC.float() / temperature, dim=-1)
    teacher_BC = F.log_softmax(teacher_logits_BC.float() / temperature, dim=-1)
    return F.kl_div(student_BC, teacher_BC, log_target=True, reduction="batchmean") * temperature**2
