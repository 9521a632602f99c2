"""Teacher logits: computed once per epoch of views, kept raw (before softmax) as float16 [N, C].

Raw logits serve every temperature, weight and logit-based method. float16 keeps three digits, which moves a
distillation loss by less than one part in a thousand.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import Tensor, nn

from kd.data.views import EpochViews


class LogitsError(ValueError):
    """Logits that cannot be stored, or stored ones that are not what was asked for."""


@torch.inference_mode()
def compute_logits(teacher: nn.Module, views: EpochViews, *, batch_size: int) -> Tensor:
    """The teacher's logits for every sample's view of one epoch, float32 [N, C], in sample order.

    The teacher is put into eval mode; its parameters and buffers are not touched.
    """
    teacher.eval()
    index_N = torch.arange(len(views), device=views.stream.device)
    return torch.cat([teacher(views.batch(index_B)).float() for index_B in torch.split(index_N, batch_size)])


def logits_to_bytes(logits_NC: Tensor, *, what: str) -> bytes:
    """float16 `.npy`. Raises LogitsError where a logit is not finite or beyond float16's range."""
    half_NC = logits_NC.to(torch.float16)
    if not torch.isfinite(half_NC).all():
        raise LogitsError(f"{what}: logits are not finite or exceed float16's range (largest {logits_NC.abs().max()})")
    buffer = io.BytesIO()
    np.save(buffer, half_NC.cpu().numpy(), allow_pickle=False)
    return buffer.getvalue()


def logits_from_bytes(data: bytes, *, samples: int, classes: int, what: str) -> Tensor:
    """The logits as stored, float16 [N, C]. Raises LogitsError for a damaged file or another shape."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # NumPy raises many types for bytes it cannot read
        raise LogitsError(f"{what}: damaged ({type(error).__name__}: {error})") from error
    if not isinstance(array, np.ndarray):
        raise LogitsError(f"{what}: damaged (an archive, not an array)")
    if array.shape != (samples, classes) or array.dtype != np.float16:
        raise LogitsError(f"{what}: holds {array.dtype} {list(array.shape)}, expected float16 {[samples, classes]}")
    return torch.from_numpy(array)
