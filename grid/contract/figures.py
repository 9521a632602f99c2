"""The figures of a result record: what they are called, and what each can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grid.contract.parsing import check_finite

POINTS = ("last", "best")
SPLITS = ("val", "test")  # that are evaluated


def metric_field(split: str, metric: str, point: str) -> str:
    return f"{split}_{metric}_{point}"


_COUNTED = (
    *("parameters", "size_bytes", "macs", "latency_ms", "latency_ms_q1", "latency_ms_q3", "latency_batch"),
    *("latency_runs", "throughput", "epochs", "best_epoch", "best_test_epoch", "seconds_setup", "seconds_train"),
    *("seconds_evaluate", "seconds_total", "device_seconds", "tries", "threads", "workers"),
)
# A float64 counts exactly up to here, and sums of so large figures stay finite.
MOST = 2.0**53
LOSS = 3.5e38  # a float32 holds no more

Range = tuple[float, float]  # the least and the most, both included

# Of a metric. Shares computed in floats may miss 1 by their rounding.
FRACTION: Range = (0.0, 1.0 + 1e-6)
UNBOUNDED: Range = (-LOSS, LOSS)

# Of each figure that is no metric of a split.
RANGES: dict[str, Range] = {
    "best_test_top1": (0.0, 1.0),
    "train_top1_last": (0.0, 1.0),
    "train_loss_last": UNBOUNDED,
    **dict.fromkeys(_COUNTED, (0.0, MOST)),
}


def check_figures(record: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """Raises ValueError that names the figures of a record that cannot be what was measured. ranges: of each."""
    check_finite(record)
    numbers = {name: value for name, value in record.items() if type(value) in (int, float)}
    outside = [
        f"{name} is {numbers[name]:g}, outside of {low:g} to {high:.6g}"
        for name, (low, high) in ranges.items()
        if name in numbers and not low <= numbers[name] <= high
    ]
    if outside:
        raise ValueError("; ".join(outside))
