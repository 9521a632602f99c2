"""A grid cut down by --where, and what it cost."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from analysis.cli import main
from analysis.errors import AnalysisError
from analysis.measures.costs import costs, saved_hours
from analysis.measures.gains import gains
from analysis.read.load import load_grid, load_grids
from analysis.read.where import filtered
from analysis.tables.costs import costs_section
from analysis.tables.grid_tables import tables
from analysis.write.markdown import markdown
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
        ("student=X", r"--where student=X: nothing in grid tiny is so; student is one of C-S, D-S"),
        ("temperature=nan", r"--where temperature=nan: temperature is float64, not 'nan'"),
        ("error=foo", r"--where error=foo: nothing in grid tiny is so$"),
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


def test_a_part_says_what_it_is_of_and_keeps_the_corrections_of_the_whole(make_grid: Maker) -> None:
    grid = make_grid("whole", teachers=["T"], students=["A", "B"], val_size=0)
    grid.fill({"T": 90.0, ("A", None): [80.0, 81.0, 82.0], ("A", "T"): [84.0, 85.2, 86.0]})
    grid.fill({("B", None): [80.0, 81.0, 82.0], ("B", "T"): [80.0, 82.0, None]})
    whole = load_grid(grid.storage, "whole")
    part = filtered(whole, ["student=A"])
    (of_whole,) = gains(whole).filter(pl.col("student") == "A").to_dicts()
    (of_part,) = gains(part).to_dicts()
    assert of_part == of_whole
    assert of_part["gain_p_holm"] == pytest.approx(2 * of_part["gain_p"]), "the other pair counts"
    text = markdown(tables(part))
    assert text.startswith("### whole, only student=A\n")
    assert "**Only**: student=A: 7 of 13 teachers and cells are shown." in text
    assert "**Unfinished**: the whole stands on 12 of 13 teachers and cells (0 failed, 1 missing)." in text
    assert "After correction for the 2 pairs that the grid plans (Holm), its gain is significant" in text
    assert "Marks and p values stay those of the whole grid, with all of its seeds." in text


def test_no_filter_changes_the_verdict_on_a_pair(make_grid: Maker) -> None:
    grid = make_grid("whole", teachers=["T", "U"], students=["A", "B"], temperature=[1.0, 4.0], seeds=range(4))
    for row in grid.find(kind="cell"):
        gain = {None: 0.0, "T": 4.0, "U": -5.0}[row["teacher"]] * (row["student"] == "A")
        grid.done(row, 80 + row["seed"] + gain + 0.1 * ((7 * row["seed"] + len(row["stage_id"])) % 3) * (gain or 1))
    whole = load_grid(grid.storage, "whole")
    names = ("teacher", "student", "temperature", "effect", "gain_p", "gain_p_holm", "gain_tests")
    said = set(gains(whole).select(names).rows())
    assert {row[3] for row in said} == {"gain", "negative transfer", "unclear"}
    for wanted in (["student=A"], ["teacher=U"], ["temperature=4"], ["seed=1", "seed=2"], ["student=B", "seed=0"]):
        part = set(gains(filtered(whole, wanted)).select(names).rows())
        assert part
        assert part <= said
    make_grid("other").fill({("ResNet-S", None): [80.0, 81.0, 82.0], ("ResNet-S", "ViT-T"): [70.0, 71.5, 72.0]})
    together = gains(load_grids(grid.storage)).filter(pl.col("grid") == "whole")
    assert set(together.select(names).rows()) == said


def test_teacher_logits_stay_where_a_cell_reads_them(make_grid: Maker) -> None:
    grid = make_grid(teachers=["T", "U"], seeds=[0])
    grid.write_plan(stages=[*grid.plan["stages"], {"id": "of-t", "kind": "logits"}, {"id": "of-u", "kind": "logits"}])
    for row in grid.rows:
        reads = {"T": "of-t", "U": "of-u"}.get(row["teacher"] or "") if row["kind"] == "cell" else None
        grid.done(row, 80.0, logits_id=reads)
    part = filtered(load_grid(grid.storage), ["teacher=T"])
    assert part.stages.filter(pl.col("kind") == "logits")["stage_id"].to_list() == ["of-t"]


@pytest.mark.parametrize("command", ["report", "plots"])
def test_a_part_does_not_replace_what_is_drawn_of_the_whole(
    make_grid: Maker, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    grid = filled(make_grid)
    before = sorted(grid.root.rglob("*"))
    assert main([command, "--storage", grid.storage, "--where", "student=C-S"]) == 2
    assert "error: --where shows a part of the grid: give --output" in capsys.readouterr().err
    assert sorted(grid.root.rglob("*")) == before
