"""Top-k logits: the largest as they are, the others by two moments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kd.logits import StoredLogits, store_logits
from kd.methods.soft_targets import soft_target_loss
from kd.recipe import LogitsDtype, LogitsFormat
from tests.kd.helpers import normal, through_a_file

TEMPERATURES = (1.0, 4.0, 20.0)


def stored(logits_NC: Tensor, k: int, dtype: LogitsDtype = "float32") -> StoredLogits:
    return store_logits(logits_NC, LogitsFormat(dtype=dtype, top_k=k), what="x")


def softmax(x_NC: np.ndarray) -> np.ndarray:
    e_NC = np.exp(x_NC - x_NC.max(axis=1, keepdims=True))
    return np.asarray(e_NC / e_NC.sum(axis=1, keepdims=True))


def largest(logits_NC: np.ndarray, k: int) -> np.ndarray:
    """True for the k largest logits of each sample."""
    mask_NC = np.zeros(logits_NC.shape, dtype=bool)
    np.put_along_axis(mask_NC, np.argsort(-logits_NC, axis=1)[:, :k], True, axis=1)
    return mask_NC


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("classes", "k"), [(100, 10), (10, 1), (10, 9), (3, 2)])
def test_the_largest_are_exact_and_the_others_mean_plus_half_the_variance_over_t(
    classes: int, k: int, temperature: float, dtype: LogitsDtype
) -> None:
    logits_NC = normal(50, classes, scale=3)
    x_NC = logits_NC.double().numpy()
    top_NC = largest(x_NC, k)
    others_NR = x_NC[~top_NC].reshape(50, classes - k)
    mean_N, half_variance_N = others_NR.mean(axis=1), others_NR.var(axis=1) / (2 * temperature)
    index_B = torch.tensor([49, 0, 7, 7])
    got_BC = stored(logits_NC, k, dtype).at(index_B, temperature=temperature)
    assert got_BC.shape == (4, classes)
    assert got_BC.dtype == torch.float32
    kept_NC = logits_NC.half().float() if dtype == "float16" else logits_NC
    for row_C, i in zip(got_BC, index_B.tolist(), strict=True):
        at_C = torch.from_numpy(top_NC[i])
        assert torch.equal(row_C[at_C], kept_NC[i][at_C])
        # Each moment is rounded to its type: eleven digits of float16, by half of the last.
        digits = 2.0**-11 if dtype == "float16" else 1e-6
        close = digits * (abs(mean_N[i]) + half_variance_N[i]) + 1e-6
        assert row_C[~at_C].tolist() == pytest.approx([mean_N[i] + half_variance_N[i]] * (classes - k), abs=close)


@pytest.mark.parametrize(
    ("classes", "index_type"),
    [(256, torch.uint8), (257, torch.int16), (32768, torch.int16), (32769, torch.int32)],
)
def test_class_numbers_take_the_smallest_type_that_holds_them(
    tmp_path: Path, classes: int, index_type: torch.dtype
) -> None:
    logits_NC = torch.zeros(2, classes)
    logits_NC[0, [0, classes - 1]] = torch.tensor([1.0, 2.0])
    logits_NC[1, [classes - 2, classes - 1]] = torch.tensor([3.0, 4.0])
    back = through_a_file(stored(logits_NC, 2, "float16"), tmp_path / "logits")
    assert back.top_NK is not None
    assert back.top_NK.dtype == index_type
    assert torch.equal(back.at(torch.arange(2), temperature=1), logits_NC)  # no others but zeros


@pytest.mark.parametrize("k", [7, 8, 100])
def test_as_many_as_there_are_classes_are_all_of_them(k: int) -> None:
    kept = stored(normal(20, 7), k)
    assert kept.top_NK is kept.rest_N2 is None
    assert torch.equal(kept.values, normal(20, 7))


def divergences(logits_NC: Tensor, kept: StoredLogits, *, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """KL(teacher || stored) of each sample, in float64; and what is lost where the others' sum is kept exactly: their
    share of the probability, times the divergence of their own distribution from a uniform one."""
    p_NC = softmax(logits_NC.double().numpy() / temperature)
    q_NC = softmax(kept.at(torch.arange(len(logits_NC)), temperature=temperature).double().numpy() / temperature)
    others_NC = ~largest(p_NC, 10)
    share_N = np.where(others_NC, p_NC, 0).sum(axis=1)
    own_NC = np.where(others_NC, p_NC / share_N[:, None], 1)
    from_uniform_N = np.where(others_NC, own_NC * np.log(own_NC * others_NC.sum(axis=1, keepdims=True)), 0).sum(axis=1)
    return (p_NC * np.log(p_NC / q_NC)).sum(axis=1), share_N * from_uniform_N


# Mean KL in nats over 1,000 samples of 100 standard normal logits with 10 kept, and by how much it may exceed what is
# lost where the others' sum is kept: at T = 1 the moments miss the sum of exp by 5 % on average, for what is left after
# the largest are taken away is no longer normal.
LOST = {1.0: (0.161, 3e-3), 4.0: (0.0176, 1e-5), 20.0: (0.00078, 1e-7)}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_what_is_lost_is_which_of_the_others_is_likelier(temperature: float, dtype: LogitsDtype) -> None:
    logits_NC = normal(1000, 100)
    got_N, stated_N = divergences(logits_NC, stored(logits_NC, 10, dtype), temperature=temperature)
    mean, excess = LOST[temperature]
    assert got_N.mean() == pytest.approx(mean, rel=0.02)
    assert -1e-7 < (got_N - stated_N).mean() < excess  # the sum kept is the best that a single level can do


@pytest.mark.parametrize(("temperature", "missed"), [(4.0, 0.08), (20.0, 8e-4)])
def test_the_sum_of_the_others_is_kept_to_second_order(temperature: float, missed: float) -> None:
    """Of wider logits, three times standard normal: the relative error of a sample, the largest of 1,000."""
    logits_NC = normal(1000, 100, scale=3)
    x_NC = logits_NC.double().numpy()
    kept_NC = stored(logits_NC, 10).at(torch.arange(1000), temperature=temperature).double().numpy()
    others_NC = ~largest(x_NC, 10)
    sums_N, kept_N = (np.where(others_NC, np.exp(z / temperature), 0).sum(axis=1) for z in (x_NC, kept_NC))
    assert abs(kept_N / sums_N - 1).max() < missed
    # The mean without the variance would miss more.
    plain_N = 90 * np.exp(np.where(others_NC, x_NC, 0).sum(axis=1) / 90 / temperature)
    assert (abs(plain_N / sums_N - 1) > 2 * abs(kept_N / sums_N - 1)).all()


def test_the_stored_teacher_teaches_nearly_what_the_teacher_would() -> None:
    """Ten of a hundred wide logits give a student at T = 4 a gradient near that of all."""
    teacher_BC, student_BC = normal(64, 100, scale=3), normal(64, 100, scale=3, seed=1)
    kept_BC = stored(teacher_BC, 10, "float16").at(torch.arange(64), temperature=4)

    def gradient(targets_BC: Tensor) -> Tensor:
        leaf_BC = student_BC.clone().requires_grad_()
        (of_leaf_BC,) = torch.autograd.grad(soft_target_loss(leaf_BC, targets_BC, temperature=4), leaf_BC)
        return of_leaf_BC.flatten()

    whole, kept = gradient(teacher_BC), gradient(kept_BC)
    assert torch.cosine_similarity(whole, kept, dim=0).item() > 0.93
    assert kept.norm() / whole.norm() == pytest.approx(1, abs=0.1)
