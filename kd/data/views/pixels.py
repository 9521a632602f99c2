"""From stored bytes to what a model is fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kd.data.dataset import DatasetMeta


@dataclass(frozen=True)
class Pixels:
    """Normalises pixels and brings them to a model's size. size None keeps the native grid.

    Resizing is bilinear, antialiased where it shrinks.
    """

    mean_C: Tensor
    std_C: Tensor
    size: int | None

    @classmethod
    def of(
        cls,
        meta: DatasetMeta,
        *,
        size: int | None,
        device: torch.device,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Pixels:
        """mean, std: of pixels in [0, 1], a number a channel (default: those of the training images)."""
        mean_C, std_C = (
            torch.tensor(stored if given is None else given, dtype=torch.float32, device=device)
            for given, stored in ((mean, meta.mean), (std, meta.std))
        )
        return cls(mean_C, std_C.clamp_min(1e-6), size)

    def __call__(self, images_BHWC: Tensor) -> Tensor:
        """A model's input, float32 [B, C, size, size], from pixels of 0 to 255."""
        return self.resize(self.normalise(images_BHWC))

    def normalise(self, images_BHWC: Tensor) -> Tensor:
        """float32 [B, H, W, C], in memory of its own."""
        width = images_BHWC.shape[2]
        # A whole row at a time, so that the innermost loop is long.
        scale = (1 / (255 * self.std_C)).repeat(width)
        shift = (-self.mean_C / self.std_C).repeat(width)
        x = images_BHWC.float().flatten(2)
        return torch.addcmul(shift, x, scale, out=x if images_BHWC.dtype == torch.uint8 else None).view(
            images_BHWC.shape
        )

    def resize(self, x_BHWC: Tensor) -> Tensor:
        """[B, C, size, size] with channels last in memory, which convolutions like best."""
        x_BCHW = x_BHWC.permute(0, 3, 1, 2)
        if self.size is None or x_BCHW.shape[-2:] == (self.size, self.size):
            return x_BCHW
        shrinks = self.size < max(x_BCHW.shape[-2:])
        return F.interpolate(x_BCHW, size=(self.size, self.size), mode="bilinear", antialias=shrinks)
