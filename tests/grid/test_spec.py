"""Grid files are checked strictly, and whatever is wrong with them is said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grid.errors import UserError
from grid.load import load_grid, named_grids, spec_from_dict
from grid.spec import GridSpec
from tests.conftest import tiny_grid


def check(**changes: Any) -> GridSpec:
    return spec_from_dict(tiny_grid(**changes), what="grid tiny")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temprature": 4}, ["temprature", "did you mean 'temperature'"]),
        ({"recipe": {"epoch": 3}}, ["recipe.epoch", "did you mean 'epochs'"]),
        ({"recipe": {"views": {"crop": 1}}}, ["recipe.views.crop", "did you mean 'crop_padding'"]),
        ({"students": [{"name": "resnet18", "recpe": {}}]}, ["students.0.recpe", "did you mean 'recipe'"]),
        ({"students": [{"name": "resnet18", "recipe": {"epohs": 1}}]}, ["students.0.recipe.epohs", "'epochs'"]),
        ({"resources": {"zzz": 1}}, ["resources.zzz", "known keys", "cpus_per_cell"]),
        ({"teachers": []}, ["teachers is empty", "modes: [baseline]"]),
        ({"students": []}, ["students", "at least 1"]),
        ({"temperature": -1}, ["temperature", "greater than 0", "-1"]),
        ({"temperature": [4, 0]}, ["temperature.1", "greater than 0"]),
        ({"alpha": 1.5}, ["alpha", "less than or equal to 1", "1.5"]),
        ({"alpha": -0.1}, ["alpha", "greater than or equal to 0"]),
        ({"seeds": [0, 0]}, ["seeds", "0 is given twice"]),
        ({"seeds": [-1]}, ["seeds", "greater than or equal to 0"]),
        ({"seeds": [True]}, ["seeds", "valid integer", "True"]),
        ({"seeds": ["0"]}, ["seeds", "valid integer"]),
        ({"method": "magic"}, ["method", "kd", "magic"]),
        ({"modes": "distiled"}, ["modes", "distilled"]),
        ({"recipe": {"epochs": 0}}, ["epochs must be >= 1", "0"]),
        ({"recipe": {"optimizer": "adm"}}, ["recipe.optimizer", "adamw", "adm"]),
        ({"dataset": {"name": "digit", "test_size": 5}}, ["unknown data set 'digit'", "digits"]),
        ({"dataset": {"name": "digits"}}, ["no official test set", "test_size"]),
        ({"dataset": {"name": "digits", "test_size": 1797}}, ["1798", "1797"]),
        ({"students": [{"name": "resnet18", "args": {"num_classes": 3}}]}, ["num_classes", "leave it out"]),
        ({"students": ["resnet18", "resnet18"]}, ["two students", "resnet18", "label"]),
        ({"students": [{"name": "resnet18", "args": {"model_name": "x"}}]}, ["model_name", "leave it out"]),
        ({"students": [{"name": "resnet18", "args": {"checkpoint_path": "x"}}]}, ["checkpoint_path", "its id"]),
        ({"students": [{"name": "resnet18", "args": {"drop_rate": float("nan")}}]}, ["students.0.args", "nan"]),
        ({"seeds": [2**63]}, ["seeds.0", "less than"]),
        ({"dataset": {"name": "digits", "test_size": 5}}, ["test_size 5", "10 classes"]),
        ({"resources": {"gpus_per_cell": 1.5}}, ["gpus_per_cell", "whole number"]),
        ({"name": "../escape"}, ["../escape", "letters"]),
    ],
)
def test_wrong_specs_are_refused_in_one_line(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check(**changes)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_an_axis_with_one_value_needs_no_brackets() -> None:
    assert check(temperature=4, seeds=7, modes="baseline") == check(temperature=[4.0], seeds=[7], modes=["baseline"])


def test_a_model_may_be_a_bare_name() -> None:
    assert check(students=["resnet18"]).students[0].name == "resnet18"


def test_models_override_the_recipe_key_by_key() -> None:
    spec = check(students=[{"name": "resnet18", "recipe": {"epochs": 9, "views": {"stream": 2}}}])
    recipe = spec.recipe_of(spec.students[0])
    assert (recipe.epochs, recipe.batch_size) == (9, 20)
    assert (recipe.views.stream, recipe.views.crop_padding) == (2, 1)
    assert spec.recipe_of(spec.teachers[0]).epochs == 2


def test_baselines_alone_need_no_teacher() -> None:
    assert check(teachers=[], modes=["baseline"]).teachers == ()


def test_every_named_grid_is_valid_and_described() -> None:
    assert "digits" in named_grids()
    for name in named_grids():
        assert load_grid(name).description, name


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


MINE = """
dataset: {name: digits, test_size: 100}
teachers: [resnet18]
students: [resnet10t]
recipe: {epochs: 3, learning_rate: 1e-3}
"""


def test_a_grid_file_is_named_after_itself_and_overridden_by_set(tmp_path: Path) -> None:
    path = write(tmp_path, MINE)
    overrides = ["recipe.epochs=2", "seeds=[0,1]", "students.0.recipe.batch_size=5", "teachers.0=resnet34"]
    with pytest.raises(UserError, match=r"students\.0 is a single value"):
        load_grid(path, overrides)
    spec = load_grid(path, [overrides[0], overrides[1], "teachers.0=resnet34", "recipe.views.crop_padding=2"])
    assert (spec.name, spec.recipe.epochs, spec.seeds, spec.teachers[0].name) == ("mine", 2, (0, 1), "resnet34")
    assert (spec.recipe.views.crop_padding, spec.recipe.learning_rate) == (2, 1e-3)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("recipe.epohs=2", "did you mean 'epochs'"),
        ("recipe.epochs", "KEY.PATH=VALUE"),
        ("=3", "KEY.PATH=VALUE"),
        ("recipe.epochs=[1", "malformed YAML"),
        ("teachers.7=resnet34", "not one of the 1 entries"),
        ("temperature=-2", "greater than 0"),
        ("recipe=3", "recipe"),
    ],
)
def test_overrides_are_checked_like_the_file(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_grid(write(tmp_path, MINE), [override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dataset: {name: digits", ["malformed YAML", "line"]),
        ("seeds: [0]\nseeds: [1]\n", ["malformed YAML", "'seeds' is given twice", "line 2"]),
        ("- a\n- b\n", ["expected keys and values", "list"]),
        ("x: !!python/object/apply:os.system ['true']", ["malformed YAML"]),
        ("", ["expected keys and values"]),
    ],
)
def test_files_that_are_no_grid(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_grid(write(tmp_path, text))
    for word in ["mine.yaml", *words]:
        assert word in str(caught.value)


def test_unknown_and_missing_grids_name_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'digits'"):
        load_grid("digit")
    with pytest.raises(UserError, match="no such file"):
        load_grid(str(tmp_path / "none.yaml"))
