"""The three paragraphs that a person reads first: literal grids, literal sentences."""

from __future__ import annotations

from collections.abc import Callable

from analysis.read.load import load_grid
from analysis.read.where import filtered
from analysis.tables.conclusion import conclude
from tests.analysis.conftest import SyntheticGrid

Maker = Callable[..., SyntheticGrid]


def two_students(make_grid: Maker) -> SyntheticGrid:
    grid = make_grid(teachers=["Big-T"], students=["Small-S", "Large-S"], seeds=[0, 1, 2])
    grid.parameters |= {"Small-S": 1_000, "Large-S": 4_000, "Big-T": 20_000}
    grid.fill({"Big-T": 90.0, ("Small-S", None): [80.0, 81.0, 82.0], ("Small-S", "Big-T"): [84.0, 85.2, 86.0]})
    return grid.fill({("Large-S", None): [85.0, 86.0, 87.0], ("Large-S", "Big-T"): [84.9, 85.8, 86.9]})


def test_the_most_accurate_and_a_smaller_one_close_to_it_are_named(make_grid: Maker) -> None:
    said = conclude(load_grid(two_students(make_grid).storage))
    assert said.deploy == (
        "Large-S, alone, the most accurate on test of 4 ways of training: 86.00 % on test (n=3), 4.0K parameters. "
        "Small-S, from Big-T, is 4.0x smaller and within 1 point of it: 85.07 % on test (n=3), 1.0K parameters, 94.5 % "
        "of its teacher's accuracy. Chosen by test itself, so the figure of the best is a little optimistic."
    )
    assert said.distillation == (
        "2 pairs of teacher and student: 1 of 2 gained significantly and none lost; the mean of 1 is above 0. The "
        "largest gain is "
        "+4.07 [+3.78, +4.35] ▲ points, Big-T → Small-S; the smallest -0.13 [-0.28, +0.01] ▽ points, Big-T → Large-S."
    )
    assert said.certainty == (
        "Each gain is the mean over 3 seeds, paired with the same seed alone. Verdicts are corrected for the 2 pairs "
        "planned (smallest corrected p below 0.001). In simulated whole grids of this design (2 students, each "
        "distilled in one way, 3 seeds) in which nothing gains, 95 % intervals held the truth 95 % of the time, and 5 "
        "% of the grids called a pair significant."
    )


def test_what_is_not_known_yet_is_said_so(make_grid: Maker) -> None:
    said = conclude(load_grid(make_grid().storage))
    assert said.deploy == "No student has been trained yet."
    assert said.distillation == "No student stands here both alone and with a teacher."
    assert said.certainty == "Nothing can be said of chance yet."


def test_one_seed_tells_nothing_from_chance(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0]).fill({("ResNet-S", None): [80.0], ("ResNet-S", "ViT-T"): [90.0]})
    said = conclude(load_grid(grid.storage))
    assert said.certainty.startswith("One seed each: nothing tells a gain from chance.")
    assert "1 pair of teacher and student: it is not significant;" in said.distillation


def test_of_crossed_settings_validation_chooses(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0, 1], temperature=[1.0, 4.0], val_size=100)
    for row in grid.find(mode="baseline"):
        grid.done(row, 80.0 + row["seed"], val_top1_last=0.8)
    for row in grid.find(mode="distilled"):
        by_val = row["temperature"] == 1.0
        grid.done(row, 85.0 if by_val else 95.0 + row["seed"], val_top1_last=0.9 if by_val else 0.8)
    said = conclude(load_grid(grid.storage))
    assert said.deploy == (
        "ResNet-S, from ViT-T, temperature 1, the most accurate on validation of 2 ways of training: 85.00 % on test "
        "(n=2), 1.0K parameters. Against the same student alone: +4.50 [+2.35, +6.65] ▲ points, significantly better."
    )
    assert "2 settings of teacher and student" in said.distillation
    assert "What validation selects, temperature 1, gave +4.50 [+2.35, +6.65] ▲ points." in said.distillation
    assert "The largest gain by test is +15.00" in said.distillation


def test_validation_chooses_where_all_have_it(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0, 1], val_size=100)
    for row in grid.find(kind="cell"):
        taught = row["mode"] == "distilled"
        grid.done(row, 85.0 if taught else 80.0 + row["seed"], val_top1_last=0.7 if taught else 0.8)
    said = conclude(load_grid(grid.storage)).deploy
    assert said.startswith(
        "ResNet-S, alone, the most accurate on validation of 2 ways of training: 80.50 % on test (n=2)"
    )
    assert "optimistic" not in said


def test_without_validation_no_crossed_setting_is_chosen(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0, 1], temperature=[1.0, 4.0])
    for row in grid.find(kind="cell"):
        grid.done(row, 80.0 + row["seed"] + (0.0 if row["mode"] == "baseline" else 3.0 - row["temperature"]))
    said = conclude(load_grid(grid.storage)).deploy
    assert said == (
        "ResNet-S, alone: 80.50 % on test (n=2), 1.0K parameters. Of the 2 distilled settings none may be chosen "
        "without a validation split (dataset.val_size); 1 of them lies above their student alone on test."
    )


def test_the_conclusion_of_a_part_says_so(make_grid: Maker) -> None:
    part = filtered(load_grid(two_students(make_grid).storage), ["student=Small-S"])
    said = conclude(part)
    assert said.deploy.startswith("Of student=Small-S alone: Small-S, from Big-T, the most accurate on test of 2 ways")
    assert said.distillation.startswith(
        "Of student=Small-S alone: 1 pair of teacher and student: its gain is significant"
    )
    assert "Verdicts are corrected for the 2 pairs planned" in said.certainty, "of the whole grid"


def test_of_several_pairs_the_gains_of_what_validation_selects_are_a_range(make_grid: Maker) -> None:
    grid = make_grid(students=["A", "B"], seeds=[0, 1], temperature=[1.0, 4.0], val_size=100)
    for row in grid.find(mode="baseline"):
        grid.done(row, 80.0, val_top1_last=0.8)
    for row in grid.find(mode="distilled"):
        gain = (2.0 if row["student"] == "A" else -1.0) if row["temperature"] == 1.0 else 9.0
        grid.done(row, 80.0 + gain, val_top1_last=0.9 if row["temperature"] == 1.0 else 0.8)
    said = conclude(load_grid(grid.storage)).distillation
    assert "What validation selects for each pair gave -1.00 to +2.00 points." in said


def test_an_unfinished_grid_says_on_how_much_it_stands(make_grid: Maker) -> None:
    grid = two_students(make_grid)
    (grid.root / grid.folder(grid.rows[-1]) / "record.json").unlink()
    assert conclude(load_grid(grid.storage)).certainty.endswith("The grid is unfinished: 12 of 13 teachers and cells.")


def test_all_pairs_that_are_planned_are_counted(make_grid: Maker) -> None:
    grid = make_grid(teachers=["Big-T"], students=["A", "B", "C"], seeds=[0, 1, 2])
    grid.fill({("A", None): [80.0, 81.0, 82.0], ("A", "Big-T"): [84.0, 85.2, 86.0], ("B", None): [80.0, 81.0, 82.0]})
    grid.fill({("B", "Big-T"): [80.0, 82.0, 81.0], ("C", None): [80.0, 81.0, 82.0]})
    said = conclude(load_grid(grid.storage)).certainty
    assert "Verdicts are corrected for the 3 pairs planned" in said
    assert "1 of the 3 cannot be judged yet, and the correction counts it too." in said
