"""(a) Our views against torchvision's transforms in a DataLoader: the same augmentation of the same images."""

from __future__ import annotations

import os

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from kd.data.dataset import DatasetMeta, Split
from kd.data.views import Pixels, ViewStream
from kd.recipe import Views
from tests.benchmarks.harness import Row, ratio

IMAGES, BATCH, REPEATS = 10_000, 128, 5
META = DatasetMeta(name="noise", classes=10, channels=3, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26), sha256="none")


def noise(count: int) -> Split:
    """Images of CIFAR's shape: what is timed does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Split(images_NCHW, torch.randint(0, 10, (count,), generator=generator))


class _Transformed(Dataset[torch.Tensor]):
    def __init__(self, split: Split) -> None:
        self.images_NCHW = split.images_NCHW
        self.transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(META.mean, META.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.images_NCHW)

    def __getitem__(self, index: int) -> torch.Tensor:
        image: torch.Tensor = self.transform(self.images_NCHW[index])
        return image


def views_vs_dataloader() -> Row:
    """Images per second of one epoch, ours over theirs; the loader keeps its workers between epochs."""
    split = noise(IMAGES)
    device = torch.device("cpu")
    pixels = Pixels.of(META, size=None, device=device)
    stream = ViewStream(split, Views(crop_padding=4, horizontal_flip=True), pixels, device=device)
    workers = len(os.sched_getaffinity(0))
    loader = DataLoader(
        _Transformed(split), batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=True
    )
    epochs = iter(range(1_000_000))

    def ours() -> None:
        epoch = stream.epoch(next(epochs))
        for index_B in torch.split(torch.randperm(IMAGES), BATCH):
            epoch.batch(index_B)

    def theirs() -> None:
        for _ in loader:
            pass

    return ratio("views_vs_dataloader", "x images/s", numerator=theirs, denominator=ours, repeats=REPEATS)
