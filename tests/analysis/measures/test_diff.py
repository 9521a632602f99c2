"""Two grids are paired stage by stage, and their differences are those of the paired runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.stats

from analysis.measures.diff import both_gains, changes, differences, fallen, match
from analysis.measures.gains import gains
from analysis.read.grids import Grid
from analysis.read.load import load_grid
from tests.analysis.conftest import SyntheticGrid

Maker = Callable[..., SyntheticGrid]

ALONE, TAUGHT = ("ResNet-S", None), ("ResNet-S", "ViT-T")
BEFORE = {"ViT-T": 92.0, ALONE: (80.0, 81.0, 82.0), TAUGHT: (82.0, 83.5, 83.0)}
NOW = {"ViT-T": 90.5, ALONE: (80.0, 81.0, 82.0), TAUGHT: (81.2, 83.1, 81.0)}


def two(tmp_path: Path, before: Any = BEFORE, now: Any = NOW, **options: Any) -> tuple[Grid, Grid]:
    """A grid in two storages; options: of the latter."""
    was = SyntheticGrid(tmp_path / "before").fill(before)
    is_ = SyntheticGrid(tmp_path / "now", **options).fill(now)
    return load_grid(was.storage), load_grid(is_.storage)


def test_a_difference_is_that_of_the_paired_runs(tmp_path: Path) -> None:
    frame = differences(match(*two(tmp_path)))
    teacher, alone, taught = frame.to_dicts()
    assert [row["teacher"] for row in (teacher, alone, taught)] == ["ViT-T", None, "ViT-T"]
    assert (teacher["n"], teacher["difference_mean_points"], teacher["difference_low_points"]) == (1, -1.5, None)
    was, is_ = np.array(BEFORE[TAUGHT]), np.array(NOW[TAUGHT])
    interval = scipy.stats.ttest_rel(is_, was).confidence_interval(0.95)
    assert taught["before_mean_percent"] == pytest.approx(was.mean(), abs=1e-9)
    assert taught["now_mean_percent"] == pytest.approx(is_.mean(), abs=1e-9)
    assert taught["difference_mean_points"] == pytest.approx((is_ - was).mean(), abs=1e-9)
    assert taught["difference_low_points"] == pytest.approx(interval.low, abs=1e-9)
    assert taught["difference_high_points"] == pytest.approx(interval.high, abs=1e-9)
    assert json.loads(taught["differences_points"]) == {"0": -0.8, "1": -0.4, "2": -2.0}
    assert (taught["n"], taught["same_stages"]) == (3, 3)
    # Where nothing differs there is no spread to judge by.
    assert (alone["difference_mean_points"], alone["difference_low_points"]) == (0.0, None)


def test_only_seeds_that_are_done_in_both_count(tmp_path: Path) -> None:
    before, now = two(tmp_path, now={**NOW, TAUGHT: (81.2, None, 81.0)})
    row = differences(match(before, now)).row(2, named=True)
    assert row["n"] == 2
    assert row["before_mean_percent"] == pytest.approx(82.5, abs=1e-9)
    assert row["difference_mean_points"] == pytest.approx(-1.4, abs=1e-9)


def test_other_stages_are_paired_by_their_labels(tmp_path: Path) -> None:
    """Another data set gives every stage another id."""
    before, now = two(tmp_path, dataset="others")
    assert not set(before.cells["stage_id"]) & set(now.cells["stage_id"])
    frame = differences(match(before, now))
    assert frame["same_stages"].to_list() == [0, 0, 0]
    assert frame["difference_mean_points"].round(9).to_list() == [-1.5, 0.0, pytest.approx(-3.2 / 3, abs=1e-8)]


def test_the_same_stages_are_paired_whatever_they_are_called(tmp_path: Path) -> None:
    before = SyntheticGrid(tmp_path / "before").fill(BEFORE)
    now = SyntheticGrid(tmp_path / "now").fill(NOW)
    renamed = [{**row, "student": row["student"] and "small"} for row in now.rows]
    now.write_plan(rows=renamed)
    sides = match(load_grid(before.storage), load_grid(now.storage))
    assert (len(sides.both), sides.only_before, sides.only_now) == (7, [], [])
    assert differences(sides)["student"].to_list() == [None, "ResNet-S", "ResNet-S"]


def test_a_label_gives_way_to_the_same_stage(tmp_path: Path) -> None:
    """Two students change their names: each stays what it was, and is not taken for the other."""
    models = {"students": ("A", "B"), "modes": ("baseline",), "seeds": (0,)}
    before = SyntheticGrid(tmp_path / "before", **models).fill({("A", None): (80.0,), ("B", None): (60.0,)})
    now = SyntheticGrid(tmp_path / "now", **models).fill({("A", None): (81.0,), ("B", None): (60.5,)})
    now.write_plan(rows=[{**row, "student": {"A": "B", "B": "A"}[row["student"]]} for row in now.rows])
    frame = differences(match(load_grid(before.storage), load_grid(now.storage)))
    assert frame.select("student", "difference_mean_points").rows() == [("A", 1.0), ("B", 0.5)]


def test_what_is_on_one_side_only_is_told(tmp_path: Path) -> None:
    before, now = two(tmp_path, now={}, students=("ResNet-S", "ViT-S"), seeds=(0, 1))
    sides = match(before, now)
    assert {row["seed"] for row in sides.only_before} == {2}
    assert {row["student"] for row in sides.only_now} == {"ViT-S"}
    assert (len(sides.both), len(sides.only_before), len(sides.only_now)) == (5, 2, 4)
    assert not any(one.done for one in sides.both)
    assert differences(sides).is_empty()


@pytest.mark.parametrize(("points", "students"), [(0.0, 2), (1.0, 2), (1.06, 2), (1.07, 1), (1.5, 0), (1.49, 1)])
def test_a_mean_falls_by_more_than_is_allowed(tmp_path: Path, points: float, students: int) -> None:
    """Those of 1.5 and 3.2 / 3 points; by just as much is not by more."""
    assert fallen(differences(match(*two(tmp_path))), points).height == students


def test_gains_are_those_of_each_grid(tmp_path: Path) -> None:
    before, now = two(tmp_path)
    ((was, is_),) = both_gains(before, now)
    assert [was, is_] == [gains(before).row(0, named=True), gains(now).row(0, named=True)]


def test_what_the_specs_say_otherwise_is_listed_by_its_key(tmp_path: Path) -> None:
    before, now = SyntheticGrid(tmp_path / "before").fill(BEFORE), SyntheticGrid(tmp_path / "now").fill(NOW)
    spec = before.plan["spec"]
    teacher = {"name": "vit", "label": "ViT-T", "args": {"depth": 4}, "code": "a" * 200}
    before.write_plan(spec={**spec, "description": "one", "recipe": {"epochs": 32}, "teachers": [teacher]})
    changed = {**teacher, "args": {"depth": 5}, "code": "a" * 199 + "b"}
    now.write_plan(spec={**spec, "description": "two", "recipe": {"epochs": 1, "new": True}, "teachers": [changed]})
    frame = changes(load_grid(before.storage), load_grid(now.storage))
    told = {what: (was, is_) for what, was, is_ in frame.iter_rows()}
    code = told.pop("teachers.ViT-T.code")
    assert told == {
        "recipe.epochs": ("32", "1"),
        "recipe.new": (None, "true"),
        "teachers.ViT-T.args.depth": ("4", "5"),
    }
    assert code[0] != code[1]
    assert max(map(len, code)) < 80


def test_what_records_say_of_where_they_ran_is_compared(tmp_path: Path) -> None:
    grids = []
    for name, torch, device in (("before", "2.11", "cpu"), ("now", "2.12", "H200")):
        made = SyntheticGrid(tmp_path / name)
        for row in made.rows:
            made.done(row, 80.0, versions=json.dumps({"torch": torch, "timm": "1"}), device=device, precision="float32")
        grids.append(load_grid(made.storage))
    assert changes(*grids).filter(pl.col("what") != "recorded.code_version").rows() == [
        ("recorded.device", "cpu", "H200"),
        ("recorded.versions.torch", "2.11", "2.12"),
    ]
