"""Views: what a model sees of an image in an epoch, as a pure function.

The view of sample i in epoch e depends on (stream, e, i) alone: its draws are made for the whole epoch at once, by a
counter-based generator, and indexed by the sample. Batch order, batch size, resuming and the number of workers cannot
change it, which is what makes teacher logits exactly cacheable. All work is on whole batches: uint8 gather, then
float, normalise, resize.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kd.data.dataset import DatasetMeta, Split
from kd.data.draws import integers, raw
from kd.recipe import Views


@dataclass(frozen=True)
class Pixels:
    """Turns uint8 [B, C, H, W] into a model's input: float32, normalised, [B, C, size, size].

    size None keeps the native grid; otherwise bilinear with antialiasing, after any crop.
    """

    mean_C: Tensor
    std_C: Tensor
    size: int | None

    @classmethod
    def of(cls, meta: DatasetMeta, *, size: int | None, device: torch.device) -> Pixels:
        mean, std = torch.tensor(meta.mean, device=device), torch.tensor(meta.std, device=device)
        return cls(mean, std.clamp_min(1e-6), size)

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        scale_C = 1 / (255 * self.std_C)
        shift_C = -self.mean_C / self.std_C
        x = images_BCHW.float() * scale_C[:, None, None] + shift_C[:, None, None]
        if self.size is not None and x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        return x


class ViewStream:
    """The random views of one training split under one policy, on one device."""

    def __init__(self, split: Split, views: Views, pixels: Pixels, *, device: torch.device) -> None:
        self.images_NCHW = split.images_NCHW.to(device)
        self.views = views
        self.pixels = pixels
        self.device = device

    def epoch(self, epoch: int) -> EpochViews:
        """All draws of one epoch (a few bytes a sample)."""
        count, pad, stream = len(self.images_NCHW), self.views.crop_padding, self.views.stream
        top_N = left_N = flip_N = None
        if pad:
            top_N = torch.from_numpy(integers(count, below=2 * pad + 1, key=("crop_top", stream, epoch)))
            left_N = torch.from_numpy(integers(count, below=2 * pad + 1, key=("crop_left", stream, epoch)))
            top_N, left_N = top_N.to(self.device), left_N.to(self.device)
        if self.views.horizontal_flip:
            flip_N = torch.from_numpy((raw(count, key=("flip", stream, epoch)) >> 63).astype(bool)).to(self.device)
        return EpochViews(self, top_N, left_N, flip_N)


@dataclass(frozen=True)
class EpochViews:
    stream: ViewStream
    top_N: Tensor | None
    left_N: Tensor | None
    flip_N: Tensor | None

    def __len__(self) -> int:
        return len(self.stream.images_NCHW)

    def batch(self, index_B: Tensor) -> Tensor:
        """The model's input for these samples, float32 [B, C, size, size]."""
        stream, pad = self.stream, self.stream.views.crop_padding
        images_BCHW = stream.images_NCHW[index_B]
        if self.top_N is None and self.flip_N is None:
            return stream.pixels(images_BCHW)
        batch, _, height, width = images_BCHW.shape
        rows_BH = torch.arange(height, device=stream.device).expand(batch, height)
        cols_BW = torch.arange(width, device=stream.device).expand(batch, width)
        if self.flip_N is not None:
            cols_BW = torch.where(self.flip_N[index_B, None], width - 1 - cols_BW, cols_BW)
        if self.top_N is not None and self.left_N is not None:
            images_BCHW = F.pad(images_BCHW, (pad, pad, pad, pad))
            rows_BH = rows_BH + self.top_N[index_B, None]
            cols_BW = cols_BW + self.left_N[index_B, None]
        each_B11 = torch.arange(batch, device=stream.device)[:, None, None]
        # The slice between index tensors moves the channels last, which is the layout convolutions like best.
        views_BHWC = images_BCHW[each_B11, :, rows_BH[:, :, None], cols_BW[:, None, :]]
        return stream.pixels(views_BHWC.permute(0, 3, 1, 2))
