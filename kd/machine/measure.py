"""How fast a model is on the device at hand."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from kd.machine.alive import tell_alive
from kd.machine.device import device_name, wait_for

FEWEST_RUNS = 3


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a forward pass of `batch` images in eval mode: median and quartiles over `runs` measured ones."""

    median_ms: float
    q1_ms: float
    q3_ms: float
    batch: int
    runs: int
    device: str

    @property
    def throughput(self) -> float:
        """Images per second at this batch."""
        return self.batch / self.median_ms * 1e3


@torch.inference_mode()
def latency(
    model: nn.Module,
    *,
    channels: int,
    size: tuple[int, int],
    batch: int,
    runs: int,
    seconds: float,
    device: torch.device,
) -> Latency:
    """Time the forward pass of `runs` batches, or of as many as begin within `seconds`, but of FEWEST_RUNS at least
    (or `runs` where that is less). Before them, a tenth of the runs or of the seconds, but one batch at least, as
    warm-up. Other work on the machine shows in the quartiles.
    """
    was_training = model.training
    model.eval()
    images = torch.zeros(batch, channels, *size, device=device).contiguous(memory_format=torch.channels_last)

    def timed(fewest: int, most: int, limit: float) -> list[float]:
        times: list[float] = []
        while len(times) < fewest or (len(times) < most and sum(times) < limit):
            started = time.perf_counter()
            model(images)
            wait_for(device)
            times.append(time.perf_counter() - started)
            tell_alive()
        return times

    timed(1, runs // 10, seconds / 10)
    times = timed(min(FEWEST_RUNS, runs), runs, seconds)
    model.train(was_training)
    q1, median, q3 = (1e3 * float(q) for q in np.percentile(times, [25, 50, 75]))
    return Latency(median, q1, q3, batch=batch, runs=len(times), device=device_name(device))
