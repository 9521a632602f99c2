"""All pairs of a grid together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from analysis.measures.overall import OVERALL_SCHEMA, overall
from analysis.read.load import load_grid
from analysis.stats import FigureWithInterval, interquartile_mean, probability_of_improvement
from tests.analysis.conftest import SyntheticGrid

Maker = Callable[..., SyntheticGrid]

# Two teachers, two students, three seeds; baselines of each student are shared by both teachers.
ALONE = {"A": [80.0, 81.0, 82.0], "B": [70.0, 72.0, 74.0]}
TAUGHT = {
    ("A", "T"): [81.0, 83.0, 85.0],  # +1 +2 +3
    ("B", "T"): [68.0, 69.0, 70.0],  # -2 -3 -4
    ("A", "U"): [84.0, 85.0, 86.0],  # +4 +4 +4
    ("B", "U"): [75.0, 77.0, 76.0],  # +5 +5 +2
}


def grid_of(make_grid: Maker, taught: dict[tuple[str, str], Any] = TAUGHT, **options: Any) -> SyntheticGrid:
    grid = make_grid(teachers=["T", "U"], students=["A", "B"], **options)
    return grid.fill({(student, None): values for student, values in ALONE.items()} | taught)


def row_of(grid: SyntheticGrid) -> dict[str, Any]:
    (row,) = overall(load_grid(grid.storage)).iter_rows(named=True)
    return row


def figure(row: dict[str, Any], name: str) -> tuple[float, float | None, float | None]:
    return row[name], row[f"{name}_low"], row[f"{name}_high"]


def shown(figure: FigureWithInterval) -> tuple[float, float | None, float | None]:
    return figure.value, figure.low, figure.high


def test_a_whole_grid(make_grid: Maker) -> None:
    row = row_of(grid_of(make_grid))
    assert [row[name] for name in ("method", "temperature", "alpha")] == ["kd", 4.0, 0.5]
    # Each of the 6 baselines counts with both teachers.
    assert [row[name] for name in ("pairs", "baseline_runs", "distilled_runs", "gain_runs")] == [4, 6, 12, 12]
    # The middle six of 70 70 72 | 72 74 74 80 80 81 | 81 82 82, of the distilled, and of the gains
    # -4 -3 -2 | 1 2 2 3 4 4 | 4 5 5.
    assert row["baseline_iqm_percent"] == pytest.approx(461 / 6)
    assert row["distilled_iqm_percent"] == pytest.approx((75 + 76 + 77 + 81 + 83 + 84) / 6)
    assert row["gain_iqm_points"] == pytest.approx(16 / 6)
    # Wins of the nine in each pair: 7.5, 0.5, 9 and 9 - 0.
    assert row["improvement"] == pytest.approx((7.5 + 0.5 + 9 + 9) / 36)


def test_the_intervals_draw_shared_baselines_once(make_grid: Maker) -> None:
    row = row_of(grid_of(make_grid))
    students = ["A", "B", "A", "B"]
    alone = [ALONE[student] for student in students]
    taught = [TAUGHT[pair] for pair in (("A", "T"), ("B", "T"), ("A", "U"), ("B", "U"))]
    paired = [[d - b for d, b in zip(ds, bs, strict=True)] for ds, bs in zip(taught, alone, strict=True)]
    assert figure(row, "baseline_iqm_percent") == pytest.approx(shown(interquartile_mean(alone, together=students)))
    assert figure(row, "distilled_iqm_percent") == pytest.approx(shown(interquartile_mean(taught)))
    assert figure(row, "gain_iqm_points") == pytest.approx(shown(interquartile_mean(paired, together=students)))
    improvement = probability_of_improvement(taught, alone, together=students)
    assert figure(row, "improvement") == pytest.approx(shown(improvement))


def test_a_shift_of_all_accuracies_leaves_the_gain_and_the_improvement(make_grid: Maker) -> None:
    row = row_of(grid_of(make_grid))
    moved = make_grid("moved", teachers=["T", "U"], students=["A", "B"], dataset="moved")
    moved.fill({(student, None): [value - 30 for value in values] for student, values in ALONE.items()})
    moved.fill({pair: [value - 30 for value in values] for pair, values in TAUGHT.items()})
    (other,) = overall(load_grid(moved.storage, "moved")).iter_rows(named=True)
    for name in ("gain_iqm_points", "improvement"):
        assert figure(other, name) == pytest.approx(figure(row, name))
    assert other["baseline_iqm_percent"] == pytest.approx(row["baseline_iqm_percent"] - 30)


def test_pairs_count_that_have_runs_both_ways(make_grid: Maker) -> None:
    taught = TAUGHT | {("B", "T"): [None, None, None], ("A", "U"): [84.0, None, 86.0]}
    row = row_of(grid_of(make_grid, taught))
    assert [row[name] for name in ("pairs", "baseline_runs", "distilled_runs", "gain_runs")] == [3, 6, 8, 8]
    assert row["improvement_low"] is not None


def test_one_run_of_a_pair_leaves_no_interval(make_grid: Maker) -> None:
    row = row_of(grid_of(make_grid, TAUGHT | {("A", "U"): [84.0, None, None]}))
    for name in ("distilled_iqm_percent", "gain_iqm_points", "improvement"):
        value, low, high = figure(row, name)
        assert value is not None
        assert (low, high) == (None, None)
    assert None not in figure(row, "baseline_iqm_percent")


def test_no_shared_seed_leaves_no_gain(make_grid: Maker) -> None:
    grid = make_grid().fill({("ResNet-S", None): [80.0, None, None], ("ResNet-S", "ViT-T"): [None, 81.0, 82.0]})
    row = row_of(grid)
    assert figure(row, "gain_iqm_points") == (None, None, None)
    assert [row[name] for name in ("pairs", "gain_runs", "improvement")] == [1, 0, 1.0]


def test_nothing_done_and_nothing_distilled(make_grid: Maker) -> None:
    row = row_of(make_grid())
    assert [row[name] for name in ("pairs", "baseline_runs", "distilled_runs", "gain_runs")] == [0, 0, 0, 0]
    assert row["improvement"] is None
    alone = overall(load_grid(make_grid("alone", modes=["baseline"]).storage, "alone"))
    assert alone.is_empty()
    assert alone.schema == OVERALL_SCHEMA


def test_each_setting_has_a_row(make_grid: Maker) -> None:
    grid = make_grid(teachers=["T", "U"], students=["A", "B"], temperature=[1.0, 4.0])
    grid.fill({(student, None): values for student, values in ALONE.items()})
    for row in grid.find(mode="distilled"):
        grid.done(row, ALONE[row["student"]][row["seed"]] + row["temperature"])
    loaded = load_grid(grid.storage)
    found = overall(loaded)
    assert found.select("temperature", "pairs").rows() == [(1.0, 4), (4.0, 4)]
    assert found["gain_iqm_points"].to_list() == pytest.approx([1.0, 4.0])
    assert_frame_equal(found, overall(loaded))
