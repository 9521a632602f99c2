"""Which trained student is handed out: the one validation selects, of the first seed, and never the best by test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from analysis.cli import main
from analysis.errors import AnalysisError
from analysis.publish import Choice, choose
from analysis.read.load import load_grid
from tests.analysis.conftest import SyntheticGrid

Maker = Callable[..., SyntheticGrid]

VAL = {("ViT-T", 1.0): 0.70, ("ViT-T", 4.0): 0.72, ("CNN-T", 1.0): 0.75, ("CNN-T", 4.0): 0.71}


@pytest.fixture
def grid(make_grid: Maker) -> SyntheticGrid:
    """Test prefers the setting that validation likes least, and the second seed."""
    grid = make_grid(teachers=["ViT-T", "CNN-T"], seeds=[5, 6], temperature=[1.0, 4.0], val_size=100)
    for row in grid.rows:
        if row["kind"] == "teacher" or row["mode"] == "baseline":
            grid.done(row, 80.0)
        else:
            val = VAL[row["teacher"], row["temperature"]]
            grid.done(row, 160.0 - 100 * val + row["seed"], val_top1_last=val)
    return grid


def chosen(grid: SyntheticGrid, **asked: Any) -> Choice:
    return choose(load_grid(grid.storage), **asked)


def test_validation_selects_among_all_teachers_and_the_first_seed_is_taken(grid: SyntheticGrid) -> None:
    found = chosen(grid)
    row = grid.one(teacher="CNN-T", temperature=1.0, seed=5)
    assert (found.stage_id, found.teacher, found.seed) == (row["stage_id"], "CNN-T", 5)
    assert "the setting with the best validation accuracy of 4: teacher CNN-T, temperature 1" in found.setting
    assert "75.00 %, n = 2" in found.setting
    assert found.seed_why == "seed 5, the first of the experiment, whatever its accuracy"
    assert (found.accuracy.n, found.accuracy.mean) == (2, pytest.approx(90.5))
    assert found.gain is not None
    assert (found.gain.n, found.gain.mean) == (2, pytest.approx(10.5))
    assert found.alone is not None
    assert (found.alone.mean, found.teacher_top1, found.teacher_parameters) == (80.0, 0.8, 10_000)


def test_what_is_asked_for_narrows_the_choice(grid: SyntheticGrid) -> None:
    found = chosen(grid, teacher="ViT-T")
    assert found.stage_id == grid.one(teacher="ViT-T", temperature=4.0, seed=5)["stage_id"]
    assert "best validation accuracy of 2 among those with teacher ViT-T: " in found.setting
    found = chosen(grid, teacher="ViT-T", temperature=1.0, alpha=0.5, seed=6)
    assert found.stage_id == grid.one(teacher="ViT-T", temperature=1.0, seed=6)["stage_id"]
    assert found.setting == "the setting asked for: teacher ViT-T, temperature 1, alpha 0.5"
    assert found.seed_why == "seed 6, asked for by number"


def test_a_baseline_has_neither_teacher_nor_gain(grid: SyntheticGrid) -> None:
    found = chosen(grid, mode="baseline")
    assert (found.teacher, found.gain, found.alone, found.teacher_top1) == (None, None, None, None)
    assert found.stage_id == grid.one(mode="baseline", seed=5)["stage_id"]


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"student": "ViT-S"}, "--student ViT-S: grid tiny has ResNet-S"),
        ({"teacher": "ViT-X"}, "--teacher ViT-X: the student's settings have ViT-T, CNN-T"),
        ({"temperature": 2.0}, "--temperature 2: the student's settings have 1, 4"),
        ({"seed": 0}, "--seed 0: the grid has the seeds 5, 6"),
        ({"mode": "baseline", "teacher": "ViT-T"}, "a student trained alone has no teacher: leave --teacher out"),
    ],
)
def test_what_is_not_there_is_named(grid: SyntheticGrid, asked: dict[str, Any], line: str) -> None:
    with pytest.raises(AnalysisError) as error:
        chosen(grid, **asked)
    assert str(error.value) == line


def test_without_validation_results_several_settings_are_named_and_none_is_taken(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0], temperature=[1.0, 4.0]).fill({"ViT-T": 90.0})
    for row in grid.find(mode="distilled"):
        grid.done(row, 80.0)
    with pytest.raises(AnalysisError, match="no validation results to choose one by: name one: --teacher ViT-T --temp"):
        chosen(grid)
    assert chosen(grid, temperature=4.0).stage_id == grid.one(temperature=4.0)["stage_id"]


def test_several_students_are_named(make_grid: Maker) -> None:
    grid = make_grid(students=["A", "B"])
    with pytest.raises(AnalysisError, match=r"^grid tiny has several students: name one with --student: A, B$"):
        chosen(grid)


def test_a_grid_of_baselines_gives_a_baseline(make_grid: Maker) -> None:
    grid = make_grid(modes=["baseline"]).fill({("ResNet-S", None): [80.0, 81.0, 82.0]})
    assert chosen(grid).setting == "the student trained alone"
    with pytest.raises(AnalysisError, match="has no distilled cells: leave --mode out"):
        chosen(grid, mode="distilled")


def test_what_is_not_done_is_not_handed_out(make_grid: Maker) -> None:
    grid = make_grid().fill({("ResNet-S", "ViT-T"): [None, 81.0, 82.0]})
    with pytest.raises(AnalysisError, match=r"^ResNet-S from ViT-T, seed 0 is not done: launch the grid"):
        chosen(grid)
    grid.fail(grid.one(teacher="ViT-T", seed=0, kind="cell"), "ValueError: no")
    with pytest.raises(AnalysisError, match=r"^ResNet-S from ViT-T, seed 0 failed: ValueError: no: launch"):
        chosen(grid)
    grid.write(f"{grid.folder(grid.one(teacher='ViT-T', seed=0, kind='cell'))}/record.json", b"{")
    with pytest.raises(AnalysisError, match="seed 0: its record cannot be read: cells/"):
        chosen(grid)
    assert chosen(grid, seed=1).seed == 1


def test_weights_are_of_one_storage(grid: SyntheticGrid, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--storage", "elsewhere", "--storage", grid.storage, "--to", "published"]) == 2
    line = "error: --storage is given several times: export takes the one that has the student's weights\n"
    assert capsys.readouterr() == ("", line)
