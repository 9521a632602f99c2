"""Decoupled knowledge distillation: the target class and the others apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kd.limits import FACTOR, check_at_most
from kd.methods.method import Batch, Method, Needs, Seen, Term, check_temperature

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Decoupled(Method):
    """ce CE + w T^2 (alpha KL(b_t || b_s) + beta KL(o_t || o_s)).

    b: the softened probabilities of (the label, any other class). o: those of the other classes, renormalised among
    themselves. Both KL are summed over classes and averaged over the batch. w = min(progress / warmup, 1): the part of
    the teacher rises linearly with the epochs.

    Source: B. Zhao, Q. Cui, R. Song et al., "Decoupled Knowledge Distillation", CVPR 2022, eq. 7; T^2, the
    warm-up (20 of 240 epochs) and the weight 1 of CE are those of the authors' code. With beta = 1 - the teacher's
    probability of the label, image by image, and alpha = 1 it is kd.
    """

    name: ClassVar[str] = "dkd"
    formula: ClassVar[str] = (
        "ce * CE + w * temperature^2 * (alpha * KL over (label, not label) + beta * KL over the other classes)"
    )
    source: ClassVar[str] = "Zhao et al., 2022"
    needs: ClassVar[Needs] = Needs.LOGITS
    one_label: ClassVar[bool] = True
    several_temperatures: ClassVar[bool] = True

    temperature: float = 4.0
    """T"""
    alpha: float = 1.0
    """the weight of the label against the rest"""
    beta: float = 8.0
    """the weight of the other classes"""
    ce: float = 1.0
    """the weight of cross-entropy"""
    warmup: float = 1 / 12
    """a share of the training; 0: none"""

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        for weight in ("alpha", "beta", "ce"):
            value = getattr(self, weight)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{weight} must be 0 or more, got {value:g}")
            check_at_most(weight, value, FACTOR)
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup must be a share of the training, from 0 to 1, got {self.warmup:g}")

    def terms(self, student: Seen, teacher: Seen, batch: Batch, beside: nn.Module) -> dict[str, Term]:
        import torch
        from torch.nn import functional as F

        label_B1 = batch.labels.first_B[:, None]
        is_label_BC = torch.zeros_like(student.logits_BC, dtype=torch.bool).scatter_(1, label_B1, True)

        def parts(logits_BC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """Log-probabilities of (label, not label) [B, 2], and of the others among themselves [B, C - 1]."""
            scaled_BC = logits_BC.float() / self.temperature
            others_BO = scaled_BC[~is_label_BC].view(len(scaled_BC), -1)
            both_B2 = torch.cat([scaled_BC.gather(1, label_B1), others_BO.logsumexp(dim=1, keepdim=True)], dim=1)
            return F.log_softmax(both_B2, dim=1), F.log_softmax(others_BO, dim=1)

        squared, rising = self.temperature**2, min(batch.progress / self.warmup, 1.0) if self.warmup else 1.0
        target, others = (
            F.kl_div(ours, theirs, log_target=True, reduction="batchmean") * squared
            for ours, theirs in zip(parts(student.logits_BC), parts(teacher.logits_BC), strict=True)
        )
        return {
            "tckd": Term(self.alpha * rising, target),
            "nckd": Term(self.beta * rising, others),
            "ce": Term(self.ce, batch.cross_entropy(student.logits_BC)),
        }
