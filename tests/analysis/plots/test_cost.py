"""Accuracy against cost: every model, the front, axes that can be read, and no panel that says nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from analysis.plots.cost import front
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.plots.conftest import costs, filled
from tests.analysis.plots.reading import drawn, spots

Maker = Callable[..., SyntheticGrid]


def test_cost_has_every_model_and_the_front(make_grid: Maker) -> None:
    figure = drawn(filled(make_grid()))["cost"].figure()
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "Parameters",
        "Multiply-adds of one image",
        "Latency (ms per batch)",
    ]
    for ax, (teacher, student) in zip(figure.axes, [(1e3, 4e3), (4e4, 1.6e5), (2, 8)], strict=True):
        assert ax.get_xscale() == "log"
        assert spots(ax, "*", 10) == [(teacher, 90.0)]
        assert spots(ax, "o", 5.5) == [(student, 81.0)]
        assert spots(ax, "s", 5.5) == [(student, 82.5)]
        (steps,) = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
        assert list(steps.get_ydata()) == [90.0, 90.0]
        assert [text.get_text() for text in ax.texts] == ["ViT-T", "ResNet-S"]


def test_front_is_what_nothing_beats() -> None:
    assert front([(1, 50), (1, 60), (2, 60), (3, 55), (4, 70), (4, 65)]) == [(1, 60), (4, 70)]


def test_times_of_another_device_are_left_out_and_named(make_grid: Maker) -> None:
    grid = filled(make_grid(students=["A", "B"]))
    grid.done(grid.one(kind="teacher"), 90.0, **costs(1000, device="GPU"))
    picture = drawn(grid)["cost"]
    stars = [spots(ax, "*", 10) for ax in picture.figure().axes]
    assert [len(found) for found in stars] == [1, 1, 0]
    assert "being measured otherwise: ViT-T" in picture.caption


def test_what_costs_the_same_for_all_models_is_not_drawn(make_grid: Maker) -> None:
    grid = make_grid()
    for label in grid.parameters:
        grid.parameters[label] = 1000
        grid.costs[label] = costs(1000) | {"macs": 1000 if label == "ViT-T" else 500}
    for row in grid.rows:
        grid.done(row, 80.0)
    picture = drawn(grid)["cost"]
    assert [ax.get_xlabel() for ax in picture.figure().axes] == ["Multiply-adds of one image"]
    assert "the same for all: Parameters, Latency (ms per batch)" in picture.caption
    for row in grid.rows:
        grid.done(row, 80.0, macs=500)
    assert "cost" not in drawn(grid)


@pytest.mark.parametrize("ratio", [1.05, 1.7, 4, 20, 60, 400, 30_000])
def test_axes_of_cost_have_figures_to_read(make_grid: Maker, ratio: float) -> None:
    grid = filled(make_grid(students=["A", "B"]))
    for label, parameters in {"ViT-T": 1_300_000 * ratio, "A": 1_300_000, "B": 1_400_000}.items():
        grid.parameters[label] = round(parameters)
        for row in grid.rows:
            if (row["student"] or row["teacher"]) == label:
                grid.done(row, 80.0)
    figure = drawn(grid)["cost"].figure()
    ax = figure.axes[0]
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticklabels() if tick.get_text() and low <= tick.get_position()[0] <= high]
    assert len({tick.get_text() for tick in ticks}) >= 2
    ends = [tick.get_window_extent().get_points()[:, 0] for tick in ticks]
    assert all(left[1] + 4 < right[0] for left, right in itertools.pairwise(ends))
