"""Ids say what is computed: the same everywhere, changed by what matters and by nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.identity import canonical, canonical_json, stage_id, without_defaults
from grid.plan import STAGE_VERSIONS, CellStage, Plan, make_plan, stage_from_json, stage_to_json
from grid.read.grid_file import spec_from_dict
from kd.data.views.policy import ColorJitter, Mixing, RandAugment, RandomErasing, ViewPolicy
from kd.recipe import LogitsFormat, Recipe
from tests.conftest import tiny_grid

ROOT = Path(__file__).parents[3]
Planner = Callable[..., Plan]


def ids(plan: Plan) -> dict[str, str]:
    """Stage ids by what a person would call the stage."""
    return {plan.titles()[stage.id]: stage.id for stage in plan.stages}


def changed(before: Plan, after: Plan) -> set[str]:
    old, new = ids(before), ids(after)
    assert old.keys() == new.keys()
    return {title for title in old if old[title] != new[title]}


def test_the_plan_has_each_stage_once_and_baselines_once_per_student(tiny_plan: Planner) -> None:
    second = {"label": "ViT-T", "name": "vit_tiny_patch16_224", "args": {"img_size": 8, "patch_size": 4}}
    plan = tiny_plan(teachers=[*tiny_grid()["teachers"], second])
    assert len(plan.teachers) == 2
    assert len(plan.logits) == 2
    baselines = [cell for cell in plan.cells if cell.mode == "baseline"]
    assert len(baselines) == 2 * 2  # students x seeds
    assert len(plan.cells) == len(baselines) + 2 * 2 * 2  # and teachers x students x seeds
    assert len({stage.id for stage in plan.stages}) == len(plan.stages)


def test_inputs_come_before_what_needs_them(tiny_plan: Planner) -> None:
    seen: set[str] = set()
    for stage in tiny_plan().stages:
        assert set(stage.inputs().values()) <= seen
        seen.add(stage.id)


def test_methods_temperatures_and_alphas_multiply_distilled_cells_only(tiny_plan: Planner) -> None:
    plan = tiny_plan(temperature=[1, 2, 4], alpha=[0.1, 0.9])
    assert len(plan.cells) == 2 * 2 + 2 * 2 * 3 * 2
    assert len(plan.logits) == 1  # one cache serves every temperature and alpha
    assert len(set(plan.titles().values())) == len(plan.stages)


EVERYTHING_TRAINED = {
    *("teacher ResNet-T", "logits of teacher ResNet-T"),
    *(
        f"{s} {how}, seed {seed}"
        for s in ("ViT-S", "ResNet-S")
        for how in ("alone", "from ResNet-T")
        for seed in (0, 1)
    ),
}
DISTILLED = {title for title in EVERYTHING_TRAINED if "from" in title}


@pytest.mark.parametrize(
    ("changes", "downstream"),
    [
        ({"temperature": 2.0}, DISTILLED),
        ({"alpha": 0.9}, DISTILLED),
        ({"recipe": {"epochs": 3, "batch_size": 20, "views": {"crop_padding": 1}}}, EVERYTHING_TRAINED),
        (
            {"dataset": {"name": "digits", "train_size": 61, "val_size": 20, "test_size": 100}},
            {*EVERYTHING_TRAINED, "data set digits"},
        ),
        (
            {"dataset": {"name": "digits", "train_size": 60, "val_size": 20, "test_size": 100, "split_seed": 1}},
            {*EVERYTHING_TRAINED, "data set digits"},
        ),
        (
            {"teachers": [{**tiny_grid()["teachers"][0], "seed": 5}]},
            {"teacher ResNet-T", "logits of teacher ResNet-T", *DISTILLED},
        ),
        (
            {"teachers": [{**tiny_grid()["teachers"][0], "recipe": {"epochs": 7}}]},
            {"teacher ResNet-T", "logits of teacher ResNet-T", *DISTILLED},
        ),
        (
            {"students": [{**tiny_grid()["students"][0], "recipe": {"epochs": 7}}, tiny_grid()["students"][1]]},
            {title for title in EVERYTHING_TRAINED if "ViT-S" in title},
        ),
        (
            {"students": [tiny_grid()["students"][0], {**tiny_grid()["students"][1], "image_size": 16}]},
            {title for title in EVERYTHING_TRAINED if "ResNet-S" in title},
        ),
        ({"logits": {"dtype": "float32"}}, {"logits of teacher ResNet-T", *DISTILLED}),
        ({"logits": {"top_k": 3}}, {"logits of teacher ResNet-T", *DISTILLED}),
        ({"resources": {"cpus_per_cell": 2, "teacher_workers": 2, "concurrency": 1}}, set()),
        ({"resources": {"checkpoint_minutes": 0.5, "deterministic": True}}, set()),
        ({"description": "other words"}, set()),
        ({"name": "another"}, set()),
    ],
)
def test_a_change_moves_exactly_what_is_downstream(
    tiny_plan: Planner, changes: dict[str, Any], downstream: set[str]
) -> None:
    assert changed(tiny_plan(), tiny_plan(**changes)) == downstream


@pytest.mark.parametrize(
    "views",
    [
        {"horizontal_flip": True},
        {"padding": "reflect"},
        {"rand_augment": {}},
        {"rand_augment": {"magnitude": 5}},
        {"color_jitter": {"hue": 0.1}},
        {"cutout": 2},
        {"random_erasing": {}},
        {"mixing": {"mixup_alpha": 0.2}},
        {"mixing": {"cutmix_alpha": 1}},
    ],
)
def test_view_policy_moves_the_teacher_its_logits_and_the_cells(tiny_plan: Planner, views: dict[str, Any]) -> None:
    other = {"epochs": 2, "batch_size": 20, "views": {"crop_padding": 1, **views}}
    assert changed(tiny_plan(), tiny_plan(recipe=other)) == EVERYTHING_TRAINED


@pytest.mark.parametrize(
    "option",
    [
        {"micro_batch_size": 5},
        {"ema_decay": 0.9},
        {"precision": "bfloat16"},
        {"precision": "float32"},
        {"compile": True},
        {"optimizer": "sgd", "nesterov": True},
    ],
)
def test_every_option_of_a_recipe_moves_what_is_trained(tiny_plan: Planner, option: dict[str, Any]) -> None:
    recipe = {**tiny_grid()["recipe"], **option}
    assert changed(tiny_plan(), tiny_plan(recipe=recipe)) == EVERYTHING_TRAINED


def test_labels_change_no_id(tiny_plan: Planner) -> None:
    renamed = [{**model, "label": f"{model['label']}x"} for model in tiny_grid()["students"]]
    assert {s.id for s in tiny_plan(students=renamed).stages} == {s.id for s in tiny_plan().stages}


def test_another_spelling_has_the_same_ids(tiny_plan: Planner) -> None:
    grid = tiny_grid(temperature=4, alpha=[0.5])
    spelled = json.loads(json.dumps(grid))
    spelled["recipe"] = {**dict(reversed(grid["recipe"].items())), "optimizer": "adamw", "weight_decay": 0.01}
    spelled["recipe"] |= {"micro_batch_size": None, "nesterov": False, "ema_decay": None, "precision": "auto"}
    spelled["recipe"] |= {"compile": False}
    spelled["recipe"]["views"] = {"stream": 0, "horizontal_flip": False, "crop_padding": 1, "padding": "zeros"}
    spelled["recipe"]["views"] |= {"cutout": 0, "mixing": None, "random_erasing": None, "color_jitter": None}
    spelled["targets"], spelled["view_streams"] = "cached", 1
    spelled["logits"] = {"top_k": None, "dtype": "float16"}
    spelled["resources"] = {"checkpoint_minutes": 10, "deterministic": False}
    spelled["temperature"], spelled["method"], spelled["modes"] = [4.0], "kd", ["baseline", "distilled"]
    spelled["students"][0]["args"] = dict(reversed(grid["students"][0]["args"].items()))
    spelled["students"][1]["image_size"] = 8  # the native grid of the images
    spelled["dataset"]["split_seed"] = 0
    again = make_plan(spec_from_dict(dict(reversed(spelled.items())), what="grid"))
    assert ids(again) == ids(tiny_plan())


def test_all_that_is_left_spelled_out_is_the_same_split(tiny_plan: Planner) -> None:
    rest = {"name": "digits", "val_size": 20, "test_size": 100}
    assert tiny_plan(dataset=rest).data.id == tiny_plan(dataset={**rest, "train_size": 1677}).data.id


def test_a_fresh_process_with_another_hash_seed_plans_the_same() -> None:
    code = (
        "from grid.read.grid_file import load_grid; from grid.plan import make_plan; "
        "print(*[s.id for s in make_plan(load_grid('digits')).stages])"
    )
    outputs = set()
    for seed in ("0", "1", "12345"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 32


def test_stages_survive_json(tiny_plan: Planner) -> None:
    for stage in tiny_plan().stages:
        again = stage_from_json(stage_to_json(stage))
        assert again == stage
        assert again.id == stage.id


def test_stage_versions_are_part_of_ids(tiny_plan: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tiny_plan()
    monkeypatch.setitem(STAGE_VERSIONS, "logits", 3)
    assert changed(before, tiny_plan()) == {"logits of teacher ResNet-T", *DISTILLED}


def test_defaults_are_pinned() -> None:
    """Ids leave defaults out: a default that changes must come with a new stage version, then change this literal. A
    new option changes no id while it is at a default that computes what was computed before it was there."""
    assert STAGE_VERSIONS == {"dataset": 2, "teacher": 2, "logits": 2, "cell": 2}
    assert asdict(Recipe()) == {
        "epochs": 10,
        "batch_size": 128,
        "micro_batch_size": None,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "momentum": 0.9,
        "nesterov": False,
        "schedule": "cosine",
        "warmup_epochs": 0.0,
        "step_epochs": (),
        "step_factor": 0.1,
        "label_smoothing": 0.0,
        "clip_norm": None,
        "ema_decay": None,
        "precision": "auto",
        "compile": False,
        "evaluate_every": 1,
        "views": {
            "crop_padding": 0,
            "padding": "zeros",
            "horizontal_flip": False,
            "rand_augment": None,
            "color_jitter": None,
            "cutout": 0,
            "random_erasing": None,
            "mixing": None,
            "stream": 0,
        },
    }
    assert asdict(ColorJitter()) == {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    assert asdict(RandAugment()) == {"operations": 2, "magnitude": 9}
    assert asdict(RandomErasing()) == {"probability": 0.25, "area": (0.02, 0.33), "ratio": (0.3, 3.3)}
    assert asdict(Mixing(mixup_alpha=1.0)) == {
        "mixup_alpha": 1.0,
        "cutmix_alpha": 0.0,
        "probability": 1.0,
        "partners": "epoch",
    }
    assert asdict(LogitsFormat()) == {"dtype": "float16", "top_k": None}


def test_a_known_id_stays() -> None:
    """Stored results are found by it: computed once by this code, on the payload shown."""
    payload = {"kind": "cell", "version": 1, "spec": {"seed": 0, "temperature": 4.0}, "inputs": {}}
    assert canonical_json(payload) == '{"inputs":{},"kind":"cell","spec":{"seed":0,"temperature":4},"version":1}'
    assert stage_id(payload) == "0ac8d254886eaee3"


def test_without_defaults_keeps_what_differs() -> None:
    assert without_defaults(Recipe()) == {}
    recipe = Recipe(epochs=3, views=ViewPolicy(stream=1, rand_augment=RandAugment(), mixing=Mixing(mixup_alpha=0.2)))
    assert without_defaults(recipe) == {
        "epochs": 3,
        "views": {"stream": 1, "rand_augment": {}, "mixing": {"mixup_alpha": 0.2}},
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_json_cannot_say_has_no_id(value: object) -> None:
    with pytest.raises(ValueError, match="no place in an id"):
        canonical({"x": value})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_ids_ignore_key_order_and_survive_json(payload: dict[str, Any]) -> None:
    shuffled = dict(reversed(payload.items()))
    assert stage_id(payload) == stage_id(shuffled) == stage_id(json.loads(canonical_json(payload)))


def test_a_cell_names_its_teacher_through_its_logits(tiny_plan: Planner) -> None:
    plan = tiny_plan()
    distilled = [cell for cell in plan.cells if isinstance(cell, CellStage) and cell.mode == "distilled"]
    assert {cell.logits.teacher.id for cell in distilled if cell.logits} == {plan.teachers[0].id}
    assert all(cell.logits is None for cell in plan.cells if cell.mode == "baseline")
