"""What is said of significance and of how far it can be trusted: literal grids, literal sentences."""

from __future__ import annotations

import math
from collections.abc import Callable

import polars as pl
import pytest
from scipy import stats

from analysis.measures.gains import gains
from analysis.measures.pairs import BEST_TEST
from analysis.measures.verdicts import Design, planned_design, shown_design
from analysis.read.load import load_grid
from analysis.read.where import filtered
from analysis.stats.coverage import SIMULATED, coverage
from analysis.tables.verdicts import bootstrap_sentence, counted, design_sentence, verdict_sentences
from tests.analysis.conftest import SyntheticGrid
from tests.benchmarks.significance import coverage_lines

Maker = Callable[..., SyntheticGrid]


def filled(grid: SyntheticGrid) -> SyntheticGrid:
    for row in grid.find(kind="cell"):
        taught = 0.0 if row["teacher"] is None else 3.0 + 0.1 * (row["seed"] % 2)
        grid.done(row, 80.0 + row["seed"] + taught, best_test_top1=0.9 - 0.01 * row["seed"])
    return grid


@pytest.mark.parametrize(
    ("effects", "said"),
    [
        (["gain", "gain", "negative transfer"], "2 of 3 gained significantly and 1 lost"),
        (["unclear", "negative transfer"], "none of 2 gained significantly and 1 lost"),
        (["gain", "unclear"], "1 of 2 gained significantly and none lost"),
        (["unclear", "unclear"], "none of 2 gained or lost significantly"),
        (["gain"], "its gain is significant"),
        (["negative transfer"], "its loss is significant"),
        (["unclear"], "it is not significant"),
    ],
)
def test_effects_are_counted_in_words(effects: list[str], said: str) -> None:
    assert counted(pl.DataFrame({"effect": effects})) == said


def test_nothing_to_judge_is_said_so(make_grid: Maker) -> None:
    (said,) = verdict_sentences(gains(load_grid(make_grid().storage)))
    assert said == "No pair can be judged yet: that takes two seeds that stand here both ways, and gains that differ."


def test_another_point_than_the_last_epoch_has_no_verdict(make_grid: Maker) -> None:
    grid = load_grid(filled(make_grid(students=["A", "B"])).storage)
    assert gains(grid)["effect"].to_list() == ["gain", "gain"]
    at_best = gains(grid, point=BEST_TEST)
    for name in ("effect", "gain_p", "gain_p_holm", "gain_tests", "gain_judged"):
        assert at_best[name].to_list() == [None, None]


def test_a_part_of_the_seeds_has_an_interval_by_the_spread_of_all(make_grid: Maker) -> None:
    whole = load_grid(filled(make_grid(seeds=range(5))).storage)
    (of_whole,) = gains(whole).to_dicts()
    (of_part,) = gains(filtered(whole, ["seed=1", "seed=3"])).to_dicts()
    assert (of_part["gain_n"], of_part["gain_mean_points"]) == (2, pytest.approx(3.1))
    variance = 0.1**2 * (2 * 3 / 5) / 4  # of the gains 3.0, 3.1, 3.0, 3.1, 3.0
    assert of_part["gain_sd_points"] == of_whole["gain_sd_points"] == pytest.approx(math.sqrt(variance))
    half = stats.t.ppf(0.975, 4) * math.sqrt(variance / 2)
    assert (of_part["gain_low_points"], of_part["gain_high_points"]) == pytest.approx((3.1 - half, 3.1 + half))
    assert of_part["gain_p"] == of_whole["gain_p"]


# How far they can be trusted


def test_the_design_of_the_whole_and_of_what_is_shown(make_grid: Maker) -> None:
    whole = load_grid(filled(make_grid(teachers=["T", "U"], students=["A", "B", "C"])).storage)
    assert planned_design(whole) == shown_design(whole) == Design(students=3, trainings=2, seeds=3)
    part = filtered(whole, ["student=A"])
    assert planned_design(part) == Design(students=3, trainings=2, seeds=3)
    assert shown_design(part) == Design(students=1, trainings=2, seeds=3)
    assert "this design (3 students, each distilled in 2 ways, 3 seeds)" in design_sentence(part)
    assert "this design (one student, distilled in 2 ways, 3 seeds)" in bootstrap_sentence(part)


def test_the_simulated_figures_are_said(make_grid: Maker) -> None:
    found = coverage(students=3, trainings=2, seeds=3)
    assert found is not None
    assert found.gain_iqm is not None
    whole = load_grid(filled(make_grid(teachers=["T", "U"], students=["A", "B", "C"])).storage)
    assert f"95 % intervals held the truth {found.interval:.0f} % of the time" in design_sentence(whole)
    assert f"{found.false_alarms:.0f} % of the grids called a pair significant." in design_sentence(whole)
    assert f"that of the gains held the truth {found.gain_iqm:.0f} % of the time" in bootstrap_sentence(whole)


def test_a_design_that_was_not_simulated_is_said_to_be(make_grid: Maker) -> None:
    whole = load_grid(filled(make_grid(students=["A", "B"], seeds=range(7))).storage)
    said = "was not simulated for this design (2 students, each distilled in one way, 7 seeds)."
    assert design_sentence(whole) == f"How often its intervals and verdicts are right {said}"
    assert bootstrap_sentence(whole).endswith(f"too narrow for few seeds; by how much {said}")


def test_an_uneven_design_is_said_to_be(make_grid: Maker) -> None:
    grid = make_grid(teachers=["T", "U"], students=["A", "B"])
    grid.write_plan(rows=[row for row in grid.rows if (row["teacher"], row["student"]) != ("U", "B")])
    whole = load_grid(filled(grid).storage)
    assert planned_design(whole) is None
    assert design_sentence(whole).endswith("for so uneven a design (students with unequally many ways or seeds).")


def test_the_kept_figures_are_those_of_the_command() -> None:
    found = "".join(coverage_lines(((1, 1),)))
    kept = {design: figures for design, figures in SIMULATED.items() if design[:2] == (1, 1)}
    assert found == "".join(
        f"    {design}: ({', '.join('None' if of is None else f'{of:.1f}' for of in figures)}),"
        for design, figures in kept.items()
    )
