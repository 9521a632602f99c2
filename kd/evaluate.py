"""Measure a classifier on a split: accuracy, likelihood, calibration, agreement with a teacher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd.data.dataset import Split
from kd.data.views.pixels import Pixels
from kd.machine.alive import tell_alive
from kd.precision import autocast
from kd.recipe import Precision

ECE_BINS = 15

# Images in a forward pass without gradient.
INFERENCE_BATCH = 512


@dataclass(frozen=True)
class Metrics:
    """Of a model on a split."""

    top1: float
    """A fraction of the split."""
    top5: float
    """A fraction of the split."""
    nll: float
    """Mean negative log-likelihood in nats."""
    ece: float
    """Expected calibration error over 15 equal bins of confidence (Guo et al., 2017)."""
    agreement: float | None = None
    """Share of samples on which the teacher predicts the same class (Stanton et al., 2021), None without a teacher."""


@torch.inference_mode()
def predict(
    model: nn.Module,
    split: Split,
    pixels: Pixels,
    *,
    batch_size: int,
    device: torch.device,
    precision: Precision,
) -> Tensor:
    """Logits of the plain (unaugmented) images, float32 [N, C] on `device`, in sample order. Leaves the model as it
    was: eval mode while predicting, no gradient, no buffer touched."""
    was_training = model.training
    model.eval()
    batches = []
    for start in range(0, len(split), batch_size):
        images_BCHW = pixels(split.images_NHWC[start : start + batch_size].to(device))
        with autocast(precision, device):
            batches.append(model(images_BCHW).float())
        tell_alive()
    model.train(was_training)
    return torch.cat(batches)


def rounded(logits_NC: Tensor) -> Tensor:
    """Logits as they are kept: float16 [N, C] on the CPU, each the nearest number; those beyond its range become the
    largest that it has. An image keeps its predicted class: logits that come to equal the highest become the next lower
    number."""
    largest = torch.finfo(torch.float16).max
    logits_NC = logits_NC.detach().float().cpu()
    kept_NC = logits_NC.clamp(-largest, largest).half().numpy()
    predicted_N = logits_NC.argmax(dim=1).numpy()
    highest_N = kept_NC[np.arange(len(kept_NC)), predicted_N]
    ties_NC = kept_NC == highest_N[:, None]
    ties_NC[np.arange(len(kept_NC)), predicted_N] = False
    kept_NC[ties_NC] = np.nextafter(kept_NC[ties_NC], np.float16(-np.inf))
    return torch.from_numpy(kept_NC)


def score(logits_NC: Tensor, labels_N: Tensor, *, teacher_logits_NC: Tensor | None = None) -> Metrics:
    """Metrics of given logits. top5 is top-C where there are fewer than five classes."""
    logits_NC, labels_N = logits_NC.float(), labels_N.to(logits_NC.device)
    # argmax throughout: topk breaks ties otherwise, and a model would disagree with itself.
    predicted_N = logits_NC.argmax(dim=1)
    ranked_NK = logits_NC.topk(min(5, logits_NC.shape[1]), dim=1).indices
    agreement = None
    if teacher_logits_NC is not None:
        same_N = predicted_N == teacher_logits_NC.to(logits_NC.device).argmax(dim=1)
        agreement = _share(same_N)
    return Metrics(
        top1=_share(predicted_N == labels_N),
        top5=_share((ranked_NK == labels_N[:, None]).any(dim=1)),
        nll=F.cross_entropy(logits_NC, labels_N).item(),
        ece=expected_calibration_error(logits_NC.softmax(dim=1), labels_N),
        agreement=agreement,
    )


def _share(of_N: Tensor) -> float:
    """The exact fraction: a float32 mean would turn 0.913 into 0.91300004."""
    return int(of_N.sum().item()) / len(of_N)


def expected_calibration_error(probabilities_NC: Tensor, labels_N: Tensor, *, bins: int = ECE_BINS) -> float:
    """Sum over confidence bins of |accuracy - confidence|, weighted by the bin's share of samples.

    Source: C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    confidence_N, predicted_N = probabilities_NC.max(dim=1)
    correct_N = (predicted_N == labels_N).double()
    bin_N = (confidence_N * bins).ceil().long().clamp(1, bins) - 1
    gap_K = torch.zeros(bins, dtype=torch.float64, device=confidence_N.device)
    gap_K.index_add_(0, bin_N, correct_N - confidence_N.double())
    return gap_K.abs().sum().item() / len(labels_N)
