"""Grids to draw, with every quantity that a picture shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from grid.store.records import Value
from tests.analysis.conftest import SyntheticGrid

TOP1 = {"baseline": 80.0, "distilled": 81.0}


def costs(parameters: int, device: str = "CPU") -> dict[str, Value]:
    ms = parameters / 500
    times: dict[str, Value] = {"latency_ms": ms, "latency_ms_q1": 0.9 * ms, "latency_ms_q3": 1.2 * ms}
    place: dict[str, Value] = {"latency_batch": 32, "latency_device": device, "latency_runs": 100}
    return {"size_bytes": 4 * parameters, "macs": 40 * parameters, **times, **place}


def filled(
    grid: SyntheticGrid, top1: Callable[[Mapping[str, Any]], float] | None = None, **facts: Value
) -> SyntheticGrid:
    """All of it done: teachers 90, seed s of a student alone 80 + s, distilled 81 + 1.5 s or as `top1` says."""
    for i, label in enumerate(grid.parameters):
        grid.parameters[label] = 1000 * (i + 1) ** 2
        grid.costs[label] = costs(grid.parameters[label])
    for row in grid.rows:
        percent = 90.0 if row["kind"] == "teacher" else TOP1[row["mode"]] + row["seed"]
        if row["kind"] == "cell" and row["mode"] == "distilled":
            percent = top1(row) if top1 else percent + 0.5 * row["seed"]
        grid.done(row, percent, **{"test_ece_last": 0.05, "test_nll_last": 0.7, **facts})
        grid.curve(
            row,
            [
                {"epoch": 1, "train_loss": 2.0 + (row.get("seed") or 0), "test_top1": None},
                {"epoch": 2, "train_loss": 1.0, "test_top1": percent / 200},
                {"epoch": 3, "train_loss": 1.0, "test_top1": percent / 100},
            ],
        )
    return grid


SIGNIFICANT = {(1.0, 0.1): -2.0, (1.0, 0.9): 1.0, (4.0, 0.1): 3.0}


@pytest.fixture
def swept(make_grid: Callable[..., SyntheticGrid]) -> SyntheticGrid:
    """Gains by (temperature, alpha), nearly alike in all seeds and so significant, but for the 0 of (4, 0.9);
    validation wants (1, 0.9)."""
    grid = make_grid(seeds=[0, 1], temperature=[1.0, 4.0], alpha=[0.1, 0.9], val_size=100)

    def top1(row: Mapping[str, Any]) -> float:
        at = (row["temperature"], row["alpha"])
        # Equal gains would show no spread, and nothing would be significant.
        gain = SIGNIFICANT.get(at, 0.0) + (row["seed"] - 0.5) / 100
        return float(80 + row["seed"] + gain)

    filled(grid, top1)
    for row in grid.find(mode="distilled"):
        val = 0.9 if (row["temperature"], row["alpha"]) == (1.0, 0.9) else 0.8
        grid.done(row, top1(row), val_top1_last=val)
    return grid
