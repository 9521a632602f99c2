"""A grid cut down by --where, and what it cost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.costs import costs, costs_section, saved_hours, shown_hours
from analysis.errors import AnalysisError
from analysis.gains import gains
from analysis.load import load_grid
from analysis.where import filtered
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.reading import section

Maker = Callable[..., SyntheticGrid]


def filled(make_grid: Maker) -> SyntheticGrid:
    grid = make_grid(teachers=["A-T", "B-T"], students=["C-S", "D-S"], seeds=[0, 1])
    for row in grid.rows:
        grid.done(row, 80.0, device_seconds=1800.0 if row["kind"] == "teacher" else 90.0, device="CPU")
    return grid


def test_a_teacher_keeps_the_baselines_and_a_student_the_teachers(make_grid: Maker) -> None:
    whole = load_grid(filled(make_grid).storage)
    frame = gains(filtered(whole, ["teacher=A-T", "student=C-S"]))
    assert frame.select("teacher", "student", "baseline_n", "distilled_n").rows() == [("A-T", "C-S", 2, 2)]


def test_values_of_one_name_add_up(make_grid: Maker) -> None:
    whole = load_grid(filled(make_grid).storage)
    assert filtered(whole, ["seed=0", "seed=1"]).cells.height == whole.cells.height
    assert set(filtered(whole, ["seed=1"]).cells["seed"].drop_nulls()) == {1}


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("student", r"--where student: expected NAME=VALUE"),
        ("studnt=C-S", r"--where studnt=C-S: records have no 'studnt'; did you mean student\?"),
        ("seed=one", r"--where seed=one: seed is int64, not 'one'"),
        ("student=X", r"no cell of grid tiny is so; student is one of C-S, D-S"),
    ],
)
def test_what_cannot_be_is_told(make_grid: Maker, where: str, reason: str) -> None:
    with pytest.raises(AnalysisError, match=reason):
        filtered(load_grid(filled(make_grid).storage), [where])


def test_costs_by_kind_of_stage(make_grid: Maker) -> None:
    grid = filled(make_grid)
    frame = costs(load_grid(grid.storage))
    assert frame.select("stage", "done", "planned", "device_hours").rows() == [
        ("teachers", 2, 2, 1.0),
        ("baselines", 4, 4, 0.1),
        ("distilled", 8, 8, 0.2),
        ("total", 14, 14, 1.3),
    ]
    assert frame["share"].to_list() == pytest.approx([1 / 1.3, 0.1 / 1.3, 0.2 / 1.3, 1.0])
    assert "| distilled |   8 of 8 |" in section(costs_section(load_grid(grid.storage)))
    assert saved_hours(load_grid(grid.storage)) == 0


def test_hours_for_people() -> None:
    assert [shown_hours(hours) for hours in (0.0001, 0.5, 1.0, 1234.56)] == ["0.4 s", "30.0 min", "1.0 h", "1,234.6 h"]
