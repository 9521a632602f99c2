"""How fast a model is on the device at hand."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a forward pass of `batch` images in eval mode: median and quartiles over `runs`."""

    median_ms: float
    q1_ms: float
    q3_ms: float
    batch: int
    runs: int
    device: str


def device_name(device: torch.device) -> str:
    """The card's name, or the processor's with the threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = "CPU"
    try:
        with open("/proc/cpuinfo") as lines:
            name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


@torch.inference_mode()
def latency(
    model: nn.Module, *, channels: int, size: tuple[int, int], batch: int, runs: int, device: torch.device
) -> Latency:
    """Time the forward pass after a tenth of `runs` as warm-up. Other work on the machine shows in the quartiles."""
    was_training = model.training
    model.eval()
    images = torch.zeros(batch, channels, *size, device=device).contiguous(memory_format=torch.channels_last)
    times = []
    for run in range(-max(1, runs // 10), runs):
        started = time.perf_counter()
        model(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if run >= 0:
            times.append((time.perf_counter() - started) * 1e3)
    model.train(was_training)
    q1, median, q3 = (float(q) for q in np.percentile(times, [25, 50, 75]))
    return Latency(median, q1, q3, batch=batch, runs=runs, device=device_name(device))
