"""What a student learns from: labels alone, or labels and a teacher. One interface for the training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from kd.losses.soft_targets import soft_target_loss


class Objective(Protocol):
    def start_epoch(self, epoch: int) -> None:
        """Called before the first batch of an epoch: the time to fetch that epoch's targets."""

    def __call__(self, logits_BC: Tensor, labels_B: Tensor, *, index_B: Tensor) -> Tensor:
        """The loss, a float32 scalar, mean over the batch. index_B: the samples' numbers in the training split."""


class HardLabels:
    """Cross-entropy with the labels, optionally smoothed: how baselines and teachers learn."""

    def __init__(self, *, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def start_epoch(self, epoch: int) -> None:
        pass

    def __call__(self, logits_BC: Tensor, labels_B: Tensor, *, index_B: Tensor) -> Tensor:
        return F.cross_entropy(logits_BC.float(), labels_B, label_smoothing=self.label_smoothing)


class Distillation:
    """alpha * T^2 * KL(teacher || student) + (1 - alpha) * CE, with the teacher's logits read an epoch at a time.

    alpha is the weight of the *soft* term (repositories disagree). `read_epoch(epoch)` returns the teacher's raw
    logits for that epoch's views, float16 or float32 [N, C], in sample order.
    """

    def __init__(
        self,
        read_epoch: Callable[[int], Tensor],
        *,
        temperature: float,
        alpha: float,
        label_smoothing: float,
        device: torch.device,
    ) -> None:
        self.read_epoch = read_epoch
        self.temperature = temperature
        self.alpha = alpha
        self.labels = HardLabels(label_smoothing=label_smoothing)
        self.device = device
        self.teacher_logits_NC: Tensor | None = None

    def start_epoch(self, epoch: int) -> None:
        self.teacher_logits_NC = self.read_epoch(epoch).to(self.device)

    def __call__(self, logits_BC: Tensor, labels_B: Tensor, *, index_B: Tensor) -> Tensor:
        assert self.teacher_logits_NC is not None, "start_epoch comes first"
        soft = soft_target_loss(logits_BC, self.teacher_logits_NC[index_B], temperature=self.temperature)
        hard = self.labels(logits_BC, labels_B, index_B=index_B)
        return self.alpha * soft + (1 - self.alpha) * hard
