"""(a) Our views against torchvision's transforms in a DataLoader: the same augmentation of the same images."""

from __future__ import annotations

import os

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from kd.data.dataset import Split
from tests.benchmarks.data import META, noise, stream
from tests.benchmarks.harness import Row, ratio

IMAGES, BATCH, REPEATS = 10_000, 128, 5


class _Transformed(Dataset[torch.Tensor]):
    def __init__(self, split: Split) -> None:
        self.images_NCHW = split.images_NHWC.permute(0, 3, 1, 2).contiguous()
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


def views_vs_dataloader() -> list[Row]:
    """Images per second of one epoch, ours over theirs; the loader keeps its workers between epochs."""
    split = noise(IMAGES)
    views = stream(split)
    workers = len(os.sched_getaffinity(0))
    loader = DataLoader(
        _Transformed(split), batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=True
    )
    epochs = iter(range(1_000_000))

    def ours() -> None:
        epoch = views.epoch(next(epochs))
        for index_B in torch.split(torch.randperm(IMAGES), BATCH):
            epoch.batch(index_B)

    def theirs() -> None:
        for _ in loader:
            pass

    return [ratio("views_vs_dataloader", "x images/s", numerator=theirs, denominator=ours, repeats=REPEATS)]
