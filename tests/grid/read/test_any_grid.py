"""Whatever a grid file holds, it gives a grid or one line: never another error, and never a grid too large to plan."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.contract.text import hidden_character
from grid.errors import UserError
from grid.plan import make_plan
from grid.read.grid_file import spec_from_dict
from grid.read.parse import parse_json, parse_yaml
from grid.spec.grid import GridSpec
from tests.conftest import tiny_grid

FULL: dict[str, Any] = tiny_grid(
    description="all keys",
    modes=["baseline", "distilled"],
    method=["kd"],
    temperature=[2, 4],
    alpha=[0.5],
    targets="cached",
    view_streams=1,
    logits={"dtype": "float16", "top_k": 3},
    resources={
        "teacher_workers": [1, 2],
        "cpus_per_teacher_worker": 1,
        "gpus_per_teacher_worker": 0.5,
        "cpus_per_cell": 1,
        "gpus_per_cell": "auto",
        "concurrency": 2,
        "checkpoint_minutes": 5.0,
    },
    published={
        "study": "S",
        "protocol": "best",
        "models": [{"model": "ResNet-T", "accuracy": 90.0}],
        "pairs": [{"teacher": "ResNet-T", "student": "ViT-S", "baseline": 1.0, "distilled": 2.0}],
    },
)
FULL["recipe"] = {
    "epochs": 2,
    "batch_size": 20,
    "micro_batch_size": 10,
    "optimizer": "sgd",
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "schedule": "step",
    "step_epochs": [1],
    "step_factor": 0.1,
    "warmup_epochs": 0.5,
    "label_smoothing": 0.1,
    "clip_norm": 1.0,
    "ema_decay": 0.9,
    "views": {
        "crop_padding": 1,
        "padding": "zeros",
        "cutout": 2,
        "stream": 0,
        "color_jitter": {"hue": 0.1},
        "rand_augment": {"operations": 2},
        "random_erasing": {"area": [0.1, 0.2]},
        "mixing": {"mixup_alpha": 0.2},
    },
}
FULL["students"][0] |= {"image_size": 8, "normalize": {"mean": [0.5], "std": [0.5]}, "recipe": {"epochs": 1}}

NUMBERS = st.one_of(
    st.sampled_from([0, -1, 2**31, 2**63 - 1, 10**9, 10**6, 10**400, 1e400, -1e400, 1e308, 1e-320, float("nan"), 0.5]),
    st.integers(),
    st.floats(),
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "\0", "\x1b[2J", "a\u202eb", "\ud800", "x" * 10_000, "a:b", "../x", "1e400", "9" * 5000, "*"]),
)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a value of the grid could be another."""
    keys = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in keys for place in places(item, (*path, key)))]


def changed(path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    grid = node = deepcopy(FULL)
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return grid


def assert_one_line(error: UserError) -> None:
    assert hidden_character(str(error)) is None
    assert len(str(error)) < 2_000


def is_a_grid_or_a_line(grid: dict[Any, Any]) -> None:
    try:
        spec = spec_from_dict(grid, what="grid x")
    except UserError as error:
        assert_one_line(error)
        return
    assert isinstance(spec, GridSpec)
    assert len(make_plan(spec).stages) < 1_000


def test_the_grid_that_is_changed_below_is_one() -> None:
    assert len(make_plan(spec_from_dict(FULL, what="grid x")).stages) == 1 + 1 + 1 + 2 * 2 + 2 * 2 * 2
    assert len(places(FULL)) > 100


@settings(max_examples=200)
@given(path=st.sampled_from(places(FULL)[1:]), value=ANYTHING)
def test_any_value_at_any_place_gives_a_grid_or_a_line(path: tuple[Any, ...], value: Any) -> None:
    is_a_grid_or_a_line(changed(path, value))


@settings(max_examples=100)
@given(path=st.sampled_from([place for place in places(FULL) if place and isinstance(place[-1], str)]), key=TEXTS)
def test_any_key_at_any_place_gives_a_grid_or_a_line(path: tuple[Any, ...], key: str) -> None:
    is_a_grid_or_a_line(changed((*path[:-1], key), 1))


@settings(max_examples=200)
@given(text=st.one_of(st.text(), st.text(alphabet="[]{}:,-&*!?|>'\"% \n\t#<a1.e0~")))
def test_any_text_is_read_or_refused_in_a_line(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        try:
            parse(text, what="grid file x")
        except UserError as error:
            assert_one_line(error)


LARGE: list[tuple[dict[str, Any], list[str]]] = [
    ({"recipe": {"epochs": 10**9}}, ["recipe: epochs must be at most 1,000,000, got 1000000000"]),
    ({"recipe": {"epochs": 10**400}}, ["recipe: epochs must be at most 1,000,000, got a number of 1329 bits"]),
    ({"recipe": {"batch_size": 10**9}}, ["batch_size must be at most 1,000,000"]),
    ({"recipe": {"evaluate_every": 10**9}}, ["evaluate_every must be at most 1,000,000"]),
    ({"recipe": {"clip_norm": float("inf")}}, ["clip_norm must be > 0, got inf"]),
    ({"recipe": {"step_factor": 1e300}}, ["step_factor must be at most 3e+38, got 1e+300"]),
    ({"recipe": {"views": {"cutout": 10**9}}}, ["recipe.views: cutout must be at most 8,192"]),
    ({"recipe": {"views": {"stream": 10**9}}}, ["recipe.views: stream must be at most 10,000"]),
    ({"recipe": {"views": {"crop_padding": 9}}}, ["crop_padding 9 is larger than the images, of 8 pixels"]),
    ({"view_streams": 10**9}, ["view_streams", "less than or equal to 10000"]),
    ({"logits": {"top_k": 10**9}}, ["top_k must be at most 1,000,000"]),
    ({"temperature": 1e300}, ["temperature", "less than or equal to 1000000"]),
    ({"temperature": float("inf")}, ["temperature"]),
    ({"resources": {"cpus_per_cell": 10**9}}, ["resources.cpus_per_cell", "less than or equal to 100000"]),
    ({"resources": {"teacher_workers": 10**9}}, ["teacher_workers must be at most 100,000"]),
    ({"resources": {"gpus_per_cell": 1e300}}, ["the number of GPUs must be at most 100,000"]),
    ({"students": [{"name": "resnet18", "image_size": 10**9}]}, ["students.0.image_size", "equal to 8192"]),
    ({"students": [{"name": "vit_tiny_patch16_224", "args": {"depth": 10**9}}]}, ["args.depth", "2,000"]),
    ({"students": [{"name": "resnet18", "args": {"layers": [600] * 4}}]}, ["args.layers asks for 2,400 layers"]),
    (
        {"dataset": {"name": "mine", "folder": "/data", "image_size": 1_000_000}},
        ["dataset.image_size", "less than or equal to 8192"],
    ),
    (
        {"seeds": [*range(30_000)]},
        ["30,000 seeds x 2 students makes 120,002 stages, and a grid may have 100,000: split it into several"],
    ),
    (
        {"recipe": {"epochs": 10**6, "views": {"cutout": 1}}, "view_streams": 2},
        ["2,000,000 passes of", "targets: online"],
    ),
]


@pytest.mark.parametrize(("changes", "words"), LARGE)
def test_what_is_too_large_is_refused_with_its_name_and_its_bound(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        spec_from_dict(tiny_grid(**changes), what="grid tiny")
    assert [word for word in words if word not in str(caught.value)] == []


def test_what_is_large_and_of_use_is_taken() -> None:
    large = tiny_grid(
        students=[{"name": "vit_tiny_patch16_224", "args": {"depth": 2_000}, "image_size": 8_192}],
        recipe={"epochs": 1_000_000, "batch_size": 1_000_000, "views": {"stream": 10_000, "cutout": 8_192}},
        seeds=[*range(20_000)],
        temperature=1_000_000,
        modes="baseline",
        resources={"teacher_workers": 100_000, "cpus_per_cell": 100_000, "gpus_per_cell": 100_000},
    )
    assert len(spec_from_dict(large, what="grid tiny").seeds) == 20_000


@pytest.mark.parametrize("text", ["a\x1b[2J", "a\u202eb", "a\nb", "a\tb", "a\u2028b", "a\x07", "\ue000", "a\u200bb"])
@pytest.mark.parametrize(
    ("place", "named"),
    [
        (("students", 0, "label"), "students.0.label"),
        (("teachers", 0, "name"), "teachers.0.name"),
        (("students", 0, "checkpoint"), "students.0.checkpoint"),
        (("dataset", "name"), "dataset.name"),
        (("dataset", "folder"), "dataset.folder"),
        (("published", "models", 0, "model"), "published.models.0.model"),
        (("published", "pairs", 0, "student"), "published.pairs.0.student"),
    ],
)
def test_hidden_characters_are_refused_in_names(place: tuple[Any, ...], named: str, text: str) -> None:
    with pytest.raises(UserError) as caught:
        spec_from_dict(changed(place, text), what="grid x")
    code = f"U+{next(ord(c) for c in text if c != 'a'):04X}"
    assert f"{named}: " in str(caught.value)
    assert f"has the character {code}, which acts on the text around it: leave it out" in str(caught.value)


def test_names_in_any_script_are_taken() -> None:
    for label in ("学生", "می\u200cخواهم", "\U0001f469\u200d\U0001f52c", "größe ± 1"):
        students = [{**FULL["students"][0], "label": label}, FULL["students"][1]]
        spec = spec_from_dict({**FULL, "students": students, "published": None}, what="grid x")
        assert spec.students[0].label == label


def test_a_description_over_several_lines_is_one_and_holds_nothing_hidden() -> None:
    written = parse_yaml("description: |\n  one line,\n  and another\n", what="x")
    assert spec_from_dict(tiny_grid(**written), what="x").description == "one line, and another"
    with pytest.raises(UserError, match=r"description: .*U\+001B"):
        spec_from_dict(tiny_grid(description="\x1b[2J"), what="x")
    with pytest.raises(UserError, match=r"published.study: .*U\+202E"):
        spec_from_dict(changed(("published", "study"), "\u202ea"), what="x")


def test_a_stored_plans_spec_is_refused_by_a_value_error_alone() -> None:
    """What is read with the plan of a stranger's storage, where numbers are not bounded by a parser."""
    for changes, _ in LARGE:
        with pytest.raises(ValueError, match="validation error"):
            GridSpec.model_validate(json.loads(json.dumps(tiny_grid(**changes))))
