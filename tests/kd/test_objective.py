from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd.losses.soft_targets import soft_target_loss
from kd.objective import Distillation, HardLabels

CPU = torch.device("cpu")


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Student logits, labels and sample numbers of a batch out of 40 samples, not in order."""
    generator = torch.Generator().manual_seed(0)
    index_B = torch.randperm(40, generator=generator)[:16]
    return torch.randn(16, 10, generator=generator) * 3, torch.randint(10, (16,), generator=generator), index_B


@pytest.fixture
def teacher_NC() -> Tensor:
    return (torch.randn(40, 10, generator=torch.Generator().manual_seed(1)) * 3).half()


def distillation(
    read: Callable[[int], Tensor], *, alpha: float, temperature: float = 4.0, label_smoothing: float = 0.0
) -> Distillation:
    return Distillation(read, temperature=temperature, alpha=alpha, label_smoothing=label_smoothing, device=CPU)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_hard_labels_are_smoothed_cross_entropy(batch: tuple[Tensor, Tensor, Tensor], label_smoothing: float) -> None:
    logits_BC, labels_B, index_B = batch
    x_BC = logits_BC.double().numpy()
    log_p_BC = x_BC - np.log(np.exp(x_BC).sum(axis=1, keepdims=True))
    target_BC = np.full_like(x_BC, label_smoothing / 10)
    target_BC[np.arange(16), labels_B.numpy()] += 1 - label_smoothing
    expected = -(target_BC * log_p_BC).sum(axis=1).mean()
    loss = HardLabels(label_smoothing=label_smoothing)(logits_BC, labels_B, index_B=index_B)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_hard_labels_compute_in_float32_whatever_the_logits_are(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits_BC, labels_B, index_B = batch
    loss = HardLabels(label_smoothing=0)(logits_BC.bfloat16(), labels_B, index_B=index_B)
    assert loss.dtype == torch.float32
    assert loss.item() == F.cross_entropy(logits_BC.bfloat16().float(), labels_B).item()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_alpha_zero_is_hard_labels(
    batch: tuple[Tensor, Tensor, Tensor], teacher_NC: Tensor, label_smoothing: float
) -> None:
    logits_BC, labels_B, index_B = batch
    objective = distillation(lambda epoch: teacher_NC, alpha=0, label_smoothing=label_smoothing)
    objective.start_epoch(0)
    hard = HardLabels(label_smoothing=label_smoothing)(logits_BC, labels_B, index_B=index_B)
    assert objective(logits_BC, labels_B, index_B=index_B).item() == hard.item()


def test_alpha_one_is_the_soft_term_of_the_batchs_samples(
    batch: tuple[Tensor, Tensor, Tensor], teacher_NC: Tensor
) -> None:
    logits_BC, labels_B, index_B = batch
    objective = distillation(lambda epoch: teacher_NC, alpha=1, temperature=20)
    objective.start_epoch(0)
    soft = soft_target_loss(logits_BC, teacher_NC[index_B], temperature=20)
    in_order = soft_target_loss(logits_BC, teacher_NC[:16], temperature=20)
    assert objective(logits_BC, labels_B, index_B=index_B).item() == soft.item()
    assert soft.item() != in_order.item()


def test_alpha_weights_the_soft_term_and_the_rest_goes_to_the_labels(
    batch: tuple[Tensor, Tensor, Tensor], teacher_NC: Tensor
) -> None:
    logits_BC, labels_B, index_B = batch
    objective = distillation(lambda epoch: teacher_NC, alpha=0.9)
    objective.start_epoch(0)
    soft = soft_target_loss(logits_BC, teacher_NC[index_B], temperature=4).item()
    hard = F.cross_entropy(logits_BC, labels_B).item()
    assert abs(soft - hard) > 0.1  # or the weights could not be told apart
    loss = objective(logits_BC, labels_B, index_B=index_B).item()
    assert loss == pytest.approx(0.9 * soft + 0.1 * hard, rel=1e-6)


def test_each_epoch_reads_its_own_logits(batch: tuple[Tensor, Tensor, Tensor], teacher_NC: Tensor) -> None:
    logits_BC, labels_B, index_B = batch
    asked: list[int] = []

    def read(epoch: int) -> Tensor:
        asked.append(epoch)
        return teacher_NC * (epoch + 1)

    objective = distillation(read, alpha=1)
    for epoch in (0, 3):
        objective.start_epoch(epoch)
        expected = soft_target_loss(logits_BC, (teacher_NC * (epoch + 1))[index_B], temperature=4)
        for _ in range(2):
            assert objective(logits_BC, labels_B, index_B=index_B).item() == expected.item()
    assert asked == [0, 3]


def test_the_gradient_reaches_the_student_alone(batch: tuple[Tensor, Tensor, Tensor], teacher_NC: Tensor) -> None:
    logits_BC, labels_B, index_B = batch
    leaf_BC = logits_BC.clone().requires_grad_()
    objective = distillation(lambda epoch: teacher_NC, alpha=0.5)
    objective.start_epoch(0)
    objective(leaf_BC, labels_B, index_B=index_B).backward()
    assert leaf_BC.grad is not None
    assert leaf_BC.grad.norm() > 0
    assert not teacher_NC.requires_grad
