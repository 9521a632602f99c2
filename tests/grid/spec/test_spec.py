"""Grid files are checked strictly, and whatever is wrong with them is said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grid.errors import UserError
from grid.read.grid_file import load_grid, named_grids, spec_from_dict
from grid.spec.grid import GridSpec
from kd.data.views.policy import Mixing
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
        ({"targets": "onlin"}, ["targets", "'cached' or 'online'", "onlin"]),
        ({"view_stream": 2}, ["view_stream", "did you mean 'view_streams'"]),
        ({"view_streams": 0}, ["view_streams", "greater than or equal to 1", "0"]),
        ({"logits": {"dtyp": "float32"}}, ["logits.dtyp", "did you mean 'dtype'"]),
        ({"logits": {"dtype": "float8"}}, ["logits.dtype", "'float16' or 'float32'", "float8"]),
        ({"logits": {"top_k": 0}}, ["logits: top_k must be >= 1, got 0"]),
        ({"resources": {"checkpoint_minute": 1}}, ["resources.checkpoint_minute", "did you mean 'checkpoint_minutes'"]),
        ({"resources": {"checkpoint_minutes": 0}}, ["resources.checkpoint_minutes", "greater than 0"]),
        ({"resources": {"deterministic": "yes"}}, ["resources.deterministic", "valid boolean", "yes"]),
        ({"recipe": {"micro_batch_siz": 5}}, ["recipe.micro_batch_siz", "did you mean 'micro_batch_size'"]),
        (
            {"recipe": {"batch_size": 20, "micro_batch_size": 21}},
            ["micro_batch_size must be between 1 and", "20", "21"],
        ),
        ({"recipe": {"ema_decay": 1}}, ["ema_decay must be between 0 and 1, got 1"]),
        ({"recipe": {"nesterov": True}}, ["nesterov needs optimizer 'sgd'"]),
        ({"recipe": {"precision": "float16"}}, ["recipe.precision", "bfloat16", "got 'float16'"]),
    ],
)
def test_wrong_specs_are_refused_in_one_line(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check(**changes)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ({"mixing": {"mixup_alph": 0.2}}, ["mixing.mixup_alph", "did you mean 'mixup_alpha'"]),
        ({"mixing": {"mixup_alpha": 0.2, "partner": "epoch"}}, ["mixing.partner", "did you mean 'partners'"]),
        ({"color_jitter": {"brightnes": 0.2}}, ["color_jitter.brightnes", "did you mean 'brightness'"]),
        ({"rand_augment": {"magnitud": 3}}, ["rand_augment.magnitud", "did you mean 'magnitude'"]),
        ({"random_erasing": {"areas": [0.1, 0.2]}}, ["random_erasing.areas", "did you mean 'area'"]),
        ({"random_erasing": {"zzz": 1}}, ["random_erasing.zzz", "known keys: probability, area, ratio"]),
    ],
)
def test_unknown_keys_of_an_augmentation_name_the_nearest_known(views: dict[str, Any], words: list[str]) -> None:
    for changes, where in (
        ({"recipe": {"views": views}}, "recipe.views."),
        ({"students": [{"name": "resnet18", "recipe": {"views": views}}]}, "students.0.recipe.views."),
    ):
        with pytest.raises(UserError) as caught:
            check(**changes)
        text = str(caught.value)
        assert "\n" not in text
        for word in [where + words[0], *words[1:]]:
            assert word in text


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ({"padding": "mirror"}, ["padding", "'zeros' or 'reflect'", "mirror"]),
        ({"cutout": -1}, ["cutout must be >= 0, got -1"]),
        ({"rand_augment": {"operations": 0}}, ["rand_augment", "operations must be between 1 and 10, got 0"]),
        ({"rand_augment": {"magnitude": 31}}, ["rand_augment", "magnitude must be between 0 and 30, got 31"]),
        ({"color_jitter": {"hue": 0.7}}, ["color_jitter", "hue must be between 0 and 0.5, got 0.7"]),
        ({"color_jitter": {"contrast": -1}}, ["color_jitter", "contrast must be between 0 and 10, got -1"]),
        ({"random_erasing": {"probability": 2}}, ["random_erasing", "probability must be between 0 and 1, got 2"]),
        ({"random_erasing": {"area": [0.3, 0.1]}}, ["random_erasing", "area must be between 0.3 and 1, got 0.1"]),
        ({"random_erasing": {"area": 0.3}}, ["random_erasing.area", "0.3"]),
        ({"mixing": {}}, ["mixing", "give mixup_alpha, cutmix_alpha or both"]),
        ({"mixing": 3}, ["mixing", "got 3"]),
        ({"mixing": {"mixup_alpha": "x"}}, ["mixing.mixup_alpha", "valid number", "got 'x'"]),
        ({"mixing": {"cutmix_alpha": 1, "probability": -1}}, ["probability must be between 0 and 1, got -1"]),
        ({"mixing": {"cutmix_alpha": 1, "partners": "all"}}, ["mixing.partners", "'epoch' or 'batch'", "all"]),
    ],
)
def test_wrong_values_of_an_augmentation_are_refused_in_one_line(views: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check(recipe={"views": views})
    text = str(caught.value)
    assert text.startswith("grid tiny: recipe.views")
    assert "\n" not in text
    for word in words:
        assert word in text


MIXED_IN_BATCHES = {"views": {"mixing": {"mixup_alpha": 0.2, "partners": "batch"}}}


@pytest.mark.parametrize(
    ("changes", "who"),
    [
        ({"recipe": MIXED_IN_BATCHES}, "students.0: "),
        (
            {"students": [tiny_grid()["students"][0], {"name": "resnet18", "recipe": MIXED_IN_BATCHES}]},
            "students.1: ",
        ),
    ],
)
def test_views_that_cannot_be_made_again_are_refused_for_cached_logits(changes: dict[str, Any], who: str) -> None:
    with pytest.raises(UserError) as caught:
        check(**changes)
    text = str(caught.value)
    assert who in text
    assert "views.mixing.partners 'batch'" in text
    assert "teacher logits cannot be cached" in text
    assert "targets: online" in text
    assert "\n" not in text
    assert check(**changes, targets="online").targets == "online"
    assert check(**changes, modes="baseline").modes == ("baseline",)


def test_a_teacher_may_learn_from_views_that_cannot_be_made_again() -> None:
    spec = check(teachers=[{"name": "resnet18", "recipe": MIXED_IN_BATCHES}])
    assert spec.recipe_of(spec.teachers[0]).views.unrepeatable is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {"views": {"stream": 1}}},
        {"students": [{"name": "resnet18", "recipe": {"views": {"stream": 1}}}]},
    ],
)
def test_streams_are_numbered_once(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"view_streams numbers the streams itself: leave recipe\.views\.stream out"):
        check(**changes, view_streams=2)
    assert check(**changes).view_streams == 1


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


def test_models_switch_parts_of_the_policy_on_and_off() -> None:
    students = [
        {"name": "resnet18", "recipe": {"views": {"mixing": None, "cutout": 2}}},
        {"name": "resnet34", "recipe": {"views": {"mixing": {"cutmix_alpha": 1}}}},
    ]
    spec = check(students=students, recipe={"views": {"mixing": {"mixup_alpha": 0.2}}})
    off, both = (spec.recipe_of(student).views for student in spec.students)
    assert (off.mixing, off.cutout) == (None, 2)
    assert both.mixing == Mixing(mixup_alpha=0.2, cutmix_alpha=1.0)


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
