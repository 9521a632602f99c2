"""What the tests of `kd` share: one thread, the digits in memory, and a run on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import nn

from kd.data.dataset import Dataset
from kd.data.views.pixels import Pixels
from kd.evaluate import predict, score
from kd.training.state import CurveRow
from tests.kd import helpers
from tests.kd.helpers import CPU, AnyRow


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
    return helpers.load_digits()


@pytest.fixture
def run(digits: Dataset) -> Callable[..., list[AnyRow]]:
    """run(model, recipe, **options): `train` on the digits."""
    return partial(helpers.run, data=digits)


@pytest.fixture
def evaluate(digits: Dataset) -> Callable[[nn.Module], CurveRow]:
    """Scores on the validation split."""
    pixels = Pixels.of(digits.meta, size=None, device=CPU)

    def measure(model: nn.Module) -> CurveRow:
        logits_NC = predict(model, digits.val, pixels, batch_size=50, device=CPU, precision="float32")
        metrics = score(logits_NC, digits.val.labels_N)
        return {"val_top1": metrics.top1, "val_nll": metrics.nll}

    return measure
