"""What the tests of `kd` share: one thread, the digits in memory, and small models with everything that has a state."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

from kd.data.dataset import Dataset, Split, prepare
from kd.data.views import Pixels, ViewStream
from kd.recipe import Views

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, and no threads that compete where tests run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """300 / 100 / 100 real digits. Not to be written to."""
    meta, arrays = prepare("digits", train_size=300, val_size=100, test_size=100, split_seed=0)
    splits = {
        name: Split(torch.from_numpy(arrays[f"{name}_images"]), torch.from_numpy(arrays[f"{name}_labels"]))
        for name in ("train", "val", "test")
    }
    return Dataset(meta, **splits)


@pytest.fixture
def digits_views(digits: Dataset) -> Callable[[Views], ViewStream]:
    """The views of the digits' training split under a policy."""

    def make(views: Views) -> ViewStream:
        return ViewStream(digits.train, views, Pixels.of(digits.meta, size=None, device=CPU), device=CPU)

    return make


@pytest.fixture
def random_split() -> Callable[..., Split]:
    """Noise images: every pixel tells which image and place it came from, as good as surely."""

    def make(count: int, *, channels: int = 3, size: tuple[int, int] = (8, 8)) -> Split:
        rng = np.random.default_rng(0)
        images_NCHW = rng.integers(0, 256, (count, channels, *size), dtype=np.uint8)
        return Split(torch.from_numpy(images_NCHW), torch.from_numpy(rng.integers(0, 10, count)))

    return make


@pytest.fixture
def noisy_model() -> Callable[[int], nn.Module]:
    """A model of 8 x 8 grey images with a convolution, batch norm and dropout, its weights drawn from a seed."""

    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, kernel_size=3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(8 * 4 * 4, 10),
        )

    return make
