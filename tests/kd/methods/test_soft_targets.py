from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd.methods.soft_targets import soft_target_loss

TEMPERATURES = (1.0, 4.0, 20.0)


def hinton(student_BC: np.ndarray, teacher_BC: np.ndarray, temperature: float) -> np.ndarray:
    """The formula as written, in float64: T^2 * sum_c p_c (log p_c - log q_c) of each sample."""
    p_BC, q_BC = (np.exp(x.astype(np.float64) / temperature) for x in (teacher_BC, student_BC))
    p_BC /= p_BC.sum(axis=1, keepdims=True)
    q_BC /= q_BC.sum(axis=1, keepdims=True)
    return np.asarray(temperature**2 * (p_BC * (np.log(p_BC) - np.log(q_BC))).sum(axis=1))


def rounding(temperature: float) -> float:
    """What float32 may cost: log-probabilities of size 2 to 16 carry about 1e-6, and T^2 multiplies it."""
    return 1e-6 * temperature**2


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    student_BC, teacher_BC = rng.normal(0, 3, (2, 32, 10)).astype(np.float32)
    return torch.from_numpy(student_BC), torch.from_numpy(teacher_BC)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_targets_are_hintons_formula(logits: tuple[Tensor, Tensor], temperature: float) -> None:
    student_BC, teacher_BC = logits
    loss = soft_target_loss(student_BC, teacher_BC, temperature=temperature)
    expected = hinton(student_BC.numpy(), teacher_BC.numpy(), temperature).mean()
    assert expected > 1  # far above the tolerance
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=rounding(temperature))


def test_the_divergence_is_from_the_teacher_not_from_the_student(logits: tuple[Tensor, Tensor]) -> None:
    student_BC, teacher_BC = logits
    forward = soft_target_loss(student_BC, teacher_BC, temperature=1).item()
    assert abs(forward - hinton(teacher_BC.numpy(), student_BC.numpy(), 1).mean()) > 0.01


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_equal_logits_cost_nothing(logits: tuple[Tensor, Tensor], temperature: float) -> None:
    student_BC, _ = logits
    assert soft_target_loss(student_BC, student_BC.clone(), temperature=temperature).item() == 0.0


def test_a_constant_added_to_all_logits_of_a_sample_costs_nothing(logits: tuple[Tensor, Tensor]) -> None:
    student_BC, _ = logits
    shifted_BC = student_BC + torch.arange(len(student_BC))[:, None]
    assert abs(soft_target_loss(student_BC, shifted_BC, temperature=4).item()) < rounding(4)


def test_classes_that_both_rule_out_do_not_change_the_loss(logits: tuple[Tensor, Tensor]) -> None:
    # A mean over classes instead of a sum would divide by 100 here and by 10 without the added classes.
    student_BC, teacher_BC = logits
    impossible = torch.full((len(student_BC), 90), -1e4)
    wide = [torch.cat([x, impossible], dim=1) for x in logits]
    narrow_loss = soft_target_loss(student_BC, teacher_BC, temperature=4).item()
    assert soft_target_loss(*wide, temperature=4).item() == pytest.approx(narrow_loss, rel=1e-6)


def test_classes_are_summed_and_not_averaged(logits: tuple[Tensor, Tensor]) -> None:
    """torch's reduction 'mean' would divide by the number of classes as well: ten here."""
    student_BC, teacher_BC = logits
    loss = soft_target_loss(student_BC, teacher_BC, temperature=1).item()
    divergence_BC = F.kl_div(student_BC.log_softmax(1), teacher_BC.softmax(1), reduction="none")
    assert loss == pytest.approx(10 * divergence_BC.mean().item(), rel=1e-5)


def test_the_batch_is_averaged(logits: tuple[Tensor, Tensor]) -> None:
    student_BC, teacher_BC = logits
    each = [soft_target_loss(s[None], t[None], temperature=4).item() for s, t in zip(*logits, strict=True)]
    whole = soft_target_loss(student_BC, teacher_BC, temperature=4).item()
    assert whole == pytest.approx(np.mean(each), abs=rounding(4))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_without_reduction_each_sample_has_its_loss(logits: tuple[Tensor, Tensor], temperature: float) -> None:
    student_BC, teacher_BC = logits
    each_B = soft_target_loss(student_BC, teacher_BC.half(), temperature=temperature, reduction="none")
    assert each_B.dtype == torch.float32
    expected_B = hinton(student_BC.numpy(), teacher_BC.half().numpy(), temperature)
    np.testing.assert_allclose(each_B.numpy(), expected_B, rtol=1e-5, atol=rounding(temperature))
    batchmean = soft_target_loss(student_BC, teacher_BC.half(), temperature=temperature)
    assert batchmean.shape == ()
    assert each_B.mean().item() == pytest.approx(batchmean.item(), rel=1e-6)


def test_temperature_does_not_change_the_scale_of_the_gradient(logits: tuple[Tensor, Tensor]) -> None:
    # For logits small against T the gradient tends to (student - teacher) / classes, whatever T is (Hinton et al.,
    # equation 4): without the factor T^2 it would be 400 times as large at T = 1 as at 20. Second-order terms are of
    # the order logits / T, here up to 0.03.
    student_BC, teacher_BC = (0.01 * x for x in logits)
    centred_BC = (student_BC - teacher_BC) - (student_BC - teacher_BC).mean(dim=1, keepdim=True)
    for temperature in TEMPERATURES:
        leaf_BC = student_BC.clone().requires_grad_()
        (gradient_BC,) = torch.autograd.grad(soft_target_loss(leaf_BC, teacher_BC, temperature=temperature), leaf_BC)
        assert gradient_BC.norm().item() == pytest.approx((centred_BC / student_BC.numel()).norm().item(), rel=0.03)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_gradient_is_t_times_the_difference_of_probabilities(
    logits: tuple[Tensor, Tensor], temperature: float
) -> None:
    student_BC, teacher_BC = logits
    leaf_BC = student_BC.clone().requires_grad_()
    (gradient_BC,) = torch.autograd.grad(soft_target_loss(leaf_BC, teacher_BC, temperature=temperature), leaf_BC)
    q_BC, p_BC = ((x.double() / temperature).softmax(dim=1).numpy() for x in logits)
    # Probabilities carry 6e-8 each; an element is up to T / 32.
    np.testing.assert_allclose(gradient_BC.numpy(), temperature * (q_BC - p_BC) / 32, atol=1e-8 * temperature, rtol=0)


def test_float16_teacher_logits_are_taken_and_computed_in_float32(logits: tuple[Tensor, Tensor]) -> None:
    student_BC, teacher_BC = logits
    half_BC = teacher_BC.half()
    loss = soft_target_loss(student_BC, half_BC, temperature=4)
    assert loss.dtype == torch.float32
    assert loss.item() == soft_target_loss(student_BC, half_BC.float(), temperature=4).item()


def test_bfloat16_student_logits_are_computed_in_float32_and_get_their_gradient(logits: tuple[Tensor, Tensor]) -> None:
    student_BC, teacher_BC = logits
    leaf_BC = student_BC.bfloat16().requires_grad_()
    loss = soft_target_loss(leaf_BC, teacher_BC, temperature=4)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    assert loss.item() == soft_target_loss(leaf_BC.float(), teacher_BC, temperature=4).item()
    assert leaf_BC.grad is not None
    assert leaf_BC.grad.norm() > 0


def test_huge_logits_stay_finite() -> None:
    student_BC, teacher_BC = torch.tensor([[3e4, -3e4]]), torch.tensor([[-3e4, 3e4]])
    # All of the teacher's mass is on a class that the student gives log-probability -6e4.
    assert soft_target_loss(student_BC, teacher_BC, temperature=1).item() == pytest.approx(6e4)
