from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from kd.machine import measure
from tests.kd.helpers import CPU, noisy_model


class Probe(nn.Module):
    """Notes what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        assert x.is_contiguous(memory_format=torch.channels_last)  # as in training
        self.shapes.append(tuple(x.shape))
        self.modes.append(self.training or torch.is_grad_enabled())
        return x


@pytest.mark.parametrize("training", [True, False])
def test_latency_times_the_forward_pass_in_eval_mode_after_a_warm_up(training: bool) -> None:
    model = Probe().train(training)
    result = measure.latency(model, channels=3, size=(4, 6), batch=2, runs=20, seconds=60, device=CPU)
    assert model.shapes == [(2, 3, 4, 6)] * 22
    assert not any(model.modes)
    assert model.training is training
    assert (result.batch, result.runs) == (2, 20)
    assert result.device == measure.device_name(CPU)


def test_latency_is_median_and_quartiles_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    took = iter([9.0, 0.001, 0.002, 0.003, 0.004, 0.005])  # seconds; the first is the warm-up
    clock = [0.0]

    def slow(x: Tensor) -> None:
        clock[0] += next(took)

    model = nn.Identity()
    model.register_forward_hook(lambda module, inputs, output: slow(output))
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    result = measure.latency(model, channels=1, size=(2, 2), batch=6, runs=5, seconds=1, device=CPU)
    assert (result.q1_ms, result.median_ms, result.q3_ms) == pytest.approx((2, 3, 4))
    assert result.throughput == pytest.approx(2000)  # 6 images in 3 ms


@pytest.mark.parametrize(
    ("each", "warm_up", "measured"),
    [
        (0.001, 10, 100),  # all of them
        (0.25, 4, 40),  # what begins within 1 and 10 seconds
        (20.0, 1, 3),  # the fewest, however long they take
    ],
)
def test_latency_is_bounded_in_time(monkeypatch: pytest.MonkeyPatch, each: float, warm_up: int, measured: int) -> None:
    clock, model = [0.0], Probe()

    def now() -> float:
        return clock[0]

    def tick(*_: object) -> None:
        clock[0] += each

    model.register_forward_hook(tick)
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=now))
    result = measure.latency(model, channels=1, size=(2, 2), batch=1, runs=100, seconds=10, device=CPU)
    assert (len(model.shapes), result.runs) == (warm_up + measured, measured)


def test_latency_does_not_touch_the_model() -> None:
    model = noisy_model(0).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    measure.latency(model, channels=1, size=(8, 8), batch=2, runs=2, seconds=60, device=CPU)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_processor_is_named_with_its_threads() -> None:
    assert measure.device_name(CPU).endswith(", 1 thread")
    torch.set_num_threads(2)
    assert measure.device_name(CPU).endswith(", 2 threads")
