from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from kd.data.views import ViewStream
from kd.logits import LogitsError, compute_logits, logits_from_bytes, logits_to_bytes
from kd.losses.soft_targets import soft_target_loss
from kd.recipe import Views

AUGMENTED = Views(crop_padding=1, horizontal_flip=True)
DigitsViews = Callable[[Views], ViewStream]
NoisyModel = Callable[[int], nn.Module]


@pytest.mark.parametrize("training", [True, False])
def test_the_teacher_computes_in_eval_mode_and_is_not_touched(
    digits_views: DigitsViews, noisy_model: NoisyModel, training: bool
) -> None:
    teacher = noisy_model(0).train(training)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    epoch = digits_views(AUGMENTED).epoch(2)
    logits_NC = compute_logits(teacher, epoch, batch_size=64)
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert torch.equal(logits_NC, compute_logits(teacher, epoch, batch_size=64))  # no dropout


def test_logits_are_those_of_each_samples_view_in_order(digits_views: DigitsViews, noisy_model: NoisyModel) -> None:
    teacher, epoch = noisy_model(0).eval(), digits_views(AUGMENTED).epoch(2)
    logits_NC = compute_logits(teacher, epoch, batch_size=64)
    assert logits_NC.shape == (300, 10)
    assert logits_NC.dtype == torch.float32
    index_B = torch.tensor([299, 0, 63, 64, 150])
    with torch.no_grad():
        expected_BC = teacher(epoch.batch(index_B))
    # Kernels may sum in another order for another batch size.
    torch.testing.assert_close(logits_NC[index_B], expected_BC, atol=1e-5, rtol=1e-5)


def test_another_epoch_has_other_logits(digits_views: DigitsViews, noisy_model: NoisyModel) -> None:
    views = digits_views(AUGMENTED)
    first, second = (compute_logits(noisy_model(0), views.epoch(e), batch_size=100) for e in (0, 1))
    assert (first != second).any(dim=1).float().mean() > 0.8  # a view stays in one of 18


def test_logits_roundtrip_as_float16() -> None:
    logits_NC = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 10
    data = logits_to_bytes(logits_NC, what="x")
    back_NC = logits_from_bytes(data, samples=50, classes=7, what="x")
    assert back_NC.dtype == torch.float16
    assert torch.equal(back_NC, logits_NC.half())
    assert len(data) == 128 + 2 * 50 * 7  # the header of a `.npy` and two bytes a logit


def test_float16_moves_the_loss_by_less_than_a_thousandth() -> None:
    generator = torch.Generator().manual_seed(0)
    student_BC, teacher_BC = torch.randn(2, 64, 100, generator=generator) * 5
    for temperature in (1.0, 4.0, 20.0):
        exact = soft_target_loss(student_BC, teacher_BC, temperature=temperature).item()
        stored = soft_target_loss(student_BC, teacher_BC.half(), temperature=temperature).item()
        assert stored == pytest.approx(exact, rel=1e-3)


def test_logits_not_in_memory_order_roundtrip() -> None:
    logits_NC = torch.arange(12.0).reshape(3, 4).T
    back_NC = logits_from_bytes(logits_to_bytes(logits_NC, what="x"), samples=4, classes=3, what="x")
    assert torch.equal(back_NC.float(), logits_NC)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 7e4])
def test_logits_that_float16_cannot_hold_are_refused(bad: float) -> None:
    logits_NC = torch.zeros(3, 4)
    logits_NC[2, 1] = bad
    with pytest.raises(LogitsError, match="teacher a, epoch 3: logits are not finite or exceed float16's range"):
        logits_to_bytes(logits_NC, what="teacher a, epoch 3")


@pytest.mark.parametrize("kept", [0, 4, 60, -1])
def test_truncated_logits_are_refused(kept: int) -> None:
    data = logits_to_bytes(torch.zeros(3, 4), what="x")
    with pytest.raises(LogitsError, match="teacher a: damaged"):
        logits_from_bytes(data[:kept], samples=3, classes=4, what="teacher a")


@pytest.mark.parametrize(("samples", "classes"), [(4, 3), (3, 5), (2, 4), (12, 1)])
def test_logits_of_another_shape_are_refused(samples: int, classes: int) -> None:
    data = logits_to_bytes(torch.zeros(3, 4), what="x")
    with pytest.raises(LogitsError, match=rf"x: holds float16 \[3, 4\], expected float16 \[{samples}, {classes}\]"):
        logits_from_bytes(data, samples=samples, classes=classes, what="x")


def test_logits_of_another_type_are_refused() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((3, 4), dtype=np.float32))
    with pytest.raises(LogitsError, match="x: holds float32"):
        logits_from_bytes(buffer.getvalue(), samples=3, classes=4, what="x")


def test_logits_that_are_no_array_are_refused() -> None:
    archive = io.BytesIO()
    np.savez(archive, logits=np.zeros((3, 4), dtype=np.float16))
    header = bytearray(logits_to_bytes(torch.zeros(3, 4), what="x"))
    header[8] = 1
    for data in (archive.getvalue(), b"PK\x03\x04 no archive", bytes(header)):
        with pytest.raises(LogitsError, match="x: damaged"):
            logits_from_bytes(data, samples=3, classes=4, what="x")


def test_pickled_logits_are_refused() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(LogitsError, match="x: damaged"):
        logits_from_bytes(buffer.getvalue(), samples=1, classes=1, what="x")
