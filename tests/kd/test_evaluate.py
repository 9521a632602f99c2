from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kd.data.dataset import Dataset
from kd.data.views.pixels import Pixels
from kd.evaluate import expected_calibration_error, predict, rounded, score
from kd.recipe import Precision
from tests.kd.helpers import CPU, linear, noisy_model


def logits_and_labels(count: int, classes: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that know a little of their labels."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, classes, count)
    logits_NC = rng.normal(0, 1.5, (count, classes))
    logits_NC[np.arange(count), labels_N] += 1.5
    return torch.from_numpy(logits_NC.astype(np.float32)), torch.from_numpy(labels_N)


@pytest.mark.parametrize(("count", "classes"), [(1000, 10), (777, 100)])
def test_scores_against_numpy(count: int, classes: int) -> None:
    logits_NC, labels_N = logits_and_labels(count, classes)
    x_NC, y_N = logits_NC.double().numpy(), labels_N.numpy()
    rank_N = (x_NC > x_NC[np.arange(count), y_N][:, None]).sum(axis=1)
    nll_N = np.log(np.exp(x_NC).sum(axis=1)) - x_NC[np.arange(count), y_N]
    metrics = score(logits_NC, labels_N)
    assert metrics.top1 == (rank_N == 0).sum() / count  # exact
    assert metrics.top5 == (rank_N < 5).sum() / count
    assert metrics.nll == pytest.approx(nll_N.mean(), rel=1e-6)
    assert metrics.agreement is None
    assert 0 < metrics.top1 < metrics.top5 < 1


def test_top5_of_three_classes_is_certain() -> None:
    logits_NC, labels_N = logits_and_labels(50, 3)
    metrics = score(logits_NC, labels_N)
    assert metrics.top5 == 1
    assert metrics.top1 < 1


def test_half_precision_logits_are_scored_in_float32() -> None:
    logits_NC, labels_N = logits_and_labels(200, 10)
    assert score(logits_NC.half(), labels_N).nll == score(logits_NC.half().float(), labels_N).nll


def test_logits_are_kept_to_the_nearest_float16_and_with_their_predicted_class() -> None:
    """Of 20,000 images with close logits many come to tie; an argmax of plain rounding would be another for some."""
    x_NC = np.random.default_rng(0).normal(0, 5, (20_000, 10)).astype(np.float32)
    x_NC[::2, 1] = np.nextafter(x_NC[::2].max(axis=1), np.float32(np.inf))
    kept_NC = rounded(torch.from_numpy(x_NC)).numpy()
    plain_NC = x_NC.astype(np.float16)
    assert kept_NC.dtype == np.float16
    assert (plain_NC.argmax(axis=1) != x_NC.argmax(axis=1)).any()
    assert (kept_NC.argmax(axis=1) == x_NC.argmax(axis=1)).all()
    changed_NC = kept_NC != plain_NC
    assert (kept_NC[changed_NC] == np.nextafter(plain_NC[changed_NC], np.float16(-np.inf))).all()
    assert (plain_NC == plain_NC.max(axis=1, keepdims=True))[changed_NC].all()


def test_logits_beyond_float16_are_kept_as_the_largest_it_has() -> None:
    kept_NC = rounded(torch.tensor([[1e6, 2e6, 0.0], [-1e6, 0.0, -0.0]]))
    assert kept_NC.tolist()[0] == [65472.0, 65504.0, 0.0]
    assert kept_NC[1, 0] == -65504
    assert kept_NC.argmax(dim=1).tolist() == [1, 1]


def naive_ece(probabilities_NC: np.ndarray, labels_N: np.ndarray, bins: int) -> float:
    """Guo et al., 2017, equation 3, a bin at a time: samples of confidence in (k / bins, (k + 1) / bins]."""
    total = 0.0
    for k in range(bins):
        confidences, hits = [], []
        for p_C, label in zip(probabilities_NC, labels_N, strict=True):
            if k / bins < p_C.max() <= (k + 1) / bins:
                confidences.append(p_C.max())
                hits.append(float(p_C.argmax() == label))
        if hits:
            total += len(hits) / len(labels_N) * abs(np.mean(hits) - np.mean(confidences))
    return total


@pytest.mark.parametrize("bins", [15, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_calibration_error_against_a_loop(bins: int, seed: int) -> None:
    logits_NC, labels_N = logits_and_labels(600, 10, seed=seed)
    p_NC = (3 * logits_NC).softmax(dim=1)  # overconfident
    expected = naive_ece(p_NC.double().numpy(), labels_N.numpy(), bins)
    assert expected > 0.05
    assert expected_calibration_error(p_NC, labels_N, bins=bins) == pytest.approx(expected, abs=1e-9)
    if bins == 15:
        assert score(3 * logits_NC, labels_N).ece == pytest.approx(expected, abs=1e-9)


def test_calibration_error_by_hand() -> None:
    p_NC = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.45, 0.55], [0.45, 0.55]])
    labels_N = torch.tensor([0, 1, 1, 1])
    # Half of the samples are right half of the time at 0.95, the other half always at 0.55.
    assert expected_calibration_error(p_NC, labels_N) == pytest.approx(0.5 * 0.45 + 0.5 * 0.45)
    # In one bin the errors cancel but for the means: 3 of 4 right at 0.75.
    assert expected_calibration_error(p_NC, labels_N, bins=1) == pytest.approx(0, abs=1e-7)


def test_a_confidence_on_a_bins_edge_belongs_to_the_bin_below() -> None:
    p_NC = torch.tensor([[0.75, 0.25], [0.6, 0.4]])
    # Both in (0.5, 0.75]: one of two is right at 0.675 on average. Apart they would give (0.25 + 0.6) / 2.
    assert expected_calibration_error(p_NC, torch.tensor([0, 1]), bins=4) == pytest.approx(0.675 - 0.5)


def test_certain_predictions_fall_in_the_last_bin() -> None:
    p_NC = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert expected_calibration_error(p_NC, torch.tensor([0, 0, 0, 0])) == 0
    assert expected_calibration_error(p_NC, torch.tensor([0, 0, 0, 1])) == pytest.approx(0.25)


def test_agreement_is_about_predictions_not_labels() -> None:
    student_NC = torch.tensor([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.0, 2.0], [2.0, 0.0, 1.0]])
    teacher_NC = torch.tensor([[9.0, 0.0, 1.0], [0.0, 1.0, 2.0], [0.0, 1.0, 5.0], [0.1, 0.0, 0.0]])
    labels_N = torch.tensor([1, 1, 1, 1])
    metrics = score(student_NC, labels_N, teacher_logits_NC=teacher_NC.half())
    assert metrics.agreement == 0.75
    assert metrics.top1 == 0.25


def test_a_model_agrees_with_itself_where_logits_tie() -> None:
    logits_NC = torch.randn(5000, 10, generator=torch.Generator().manual_seed(0)).mul(2).round()
    metrics = score(logits_NC, torch.zeros(5000, dtype=torch.int64), teacher_logits_NC=logits_NC.half())
    assert metrics.agreement == 1.0


@pytest.fixture
def pixels(digits: Dataset) -> Pixels:
    return Pixels.of(digits.meta, size=None, device=CPU)


@pytest.mark.parametrize("batch_size", [1, 30, 100, 1000])
def test_predictions_come_in_sample_order(digits: Dataset, pixels: Pixels, batch_size: int) -> None:
    model = noisy_model(0).eval()
    with torch.no_grad():
        expected_NC = model(pixels(digits.val.images_NHWC))
    got_NC = predict(model, digits.val, pixels, batch_size=batch_size, device=CPU, precision="float32")
    assert got_NC.dtype == torch.float32
    assert got_NC.shape == (100, 10)
    # Kernels may sum in another order for another batch size.
    torch.testing.assert_close(got_NC, expected_NC, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_predicting_leaves_the_model_as_it_was(digits: Dataset, pixels: Pixels, training: bool) -> None:
    model = noisy_model(0).train(training)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first = predict(model, digits.val, pixels, batch_size=32, device=CPU, precision="float32")
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    # Nothing random took part: dropout was off.
    assert torch.equal(first, predict(model, digits.val, pixels, batch_size=32, device=CPU, precision="float32"))


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_predictions_are_float32_whatever_the_model_computes_in(
    digits: Dataset, pixels: Pixels, precision: Precision, dtype: torch.dtype
) -> None:
    model = linear()
    seen: set[torch.dtype] = set()
    model[1].register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    logits_NC = predict(model, digits.val, pixels, batch_size=40, device=CPU, precision=precision)
    assert logits_NC.dtype == torch.float32
    assert seen == {dtype}
