"""What the benchmarks run on: images of CIFAR's shape; what is timed does not depend on what they show."""

from __future__ import annotations

import torch

from kd.data.dataset import DatasetMeta, Split
from kd.data.views.pixels import Pixels
from kd.data.views.policy import ViewPolicy
from kd.data.views.views import ViewStream

CPU = torch.device("cpu")
CROP_AND_FLIP = ViewPolicy(crop_padding=4, horizontal_flip=True)
META = DatasetMeta(
    name="noise", classes=10, channels=3, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26), fingerprint="none"
)


def noise(count: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    images_NHWC = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Split(images_NHWC, torch.randint(0, 10, (count,), generator=generator))


def stream(split: Split, views: ViewPolicy = CROP_AND_FLIP) -> ViewStream:
    return ViewStream(split, views, Pixels.of(META, size=None, device=CPU), device=CPU)
