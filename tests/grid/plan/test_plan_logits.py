"""Which teacher logits a grid needs: one stage for each teacher and policy of views, whatever streams and epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from grid.identity import canonical_json
from grid.plan import CellStage, LogitsStage, LogitsUnit, Plan, stage_from_json, stage_to_json
from tests.conftest import VIT, tiny_grid, with_epochs

Planner = Callable[..., Plan]

TEACHERS = [*tiny_grid()["teachers"], {"label": "ViT-T", "name": "vit_tiny_patch16_224", "args": VIT}]
VIT_S, RESNET_S = tiny_grid()["students"]


def recipe(*, epochs: int = 2, **views: Any) -> dict[str, Any]:
    return {"epochs": epochs, "batch_size": 20, "views": views}


def cells(plan: Plan) -> dict[str, CellStage]:
    titles = plan.titles()
    return {titles[cell.id]: cell for cell in plan.cells}


def the_logits(plan: Plan) -> LogitsStage:
    (stage,) = plan.logits
    return stage


def test_there_is_one_stage_for_each_teacher_and_policy_of_views(tiny_plan: Planner) -> None:
    flipped = {**RESNET_S, "recipe": {"views": {"horizontal_flip": True}}}
    plan = tiny_plan(teachers=TEACHERS, students=[VIT_S, flipped], seeds=[0, 1, 2])
    keys = {(stage.teacher.model.shown, stage.views.horizontal_flip) for stage in plan.logits}
    assert keys == {("ResNet-T", False), ("ResNet-T", True), ("ViT-T", False), ("ViT-T", True)}
    assert len(plan.logits) == 4
    for cell in plan.cells:
        if cell.logits is not None:
            assert cell.logits in plan.logits
            assert cell.logits.teacher == cell.teacher
            assert cell.logits.views == cell.recipe.views


def test_logits_are_called_by_their_teacher(tiny_plan: Planner) -> None:
    plan = tiny_plan(teachers=TEACHERS)
    assert [plan.titles()[stage.id] for stage in plan.logits] == [
        "logits of teacher ResNet-T",
        "logits of teacher ViT-T",
    ]


def test_a_longer_schedule_and_more_streams_share_the_id_and_ask_for_more(tiny_plan: Planner) -> None:
    short = the_logits(tiny_plan())
    longer = the_logits(tiny_plan(students=[VIT_S, {**RESNET_S, "recipe": {"epochs": 6}}]))
    streams = the_logits(tiny_plan(view_streams=2))
    every_view = the_logits(tiny_plan(recipe=recipe(epochs=10, crop_padding=1)))
    assert [stage.epochs for stage in (short, longer, streams, every_view)] == [(2,), (6,), (2, 2), (10,)]
    assert [stage.keeps_every_view for stage in (short, longer, streams, every_view)] == [False, False, False, True]
    assert short.id == longer.id == streams.id
    assert short.payload == longer.payload == streams.payload
    # The teacher trains longer here, too: but for that, the fourth would be the same.
    assert every_view.spec_payload() == short.spec_payload()
    assert with_epochs(short, 10).keeps_every_view
    assert with_epochs(short, 10).id == short.id
    assert canonical_json(short.spec_payload()) == '{"stored_as":{},"views":{"crop_padding":1}}'


def test_epochs_are_the_most_that_any_student_asks_of_each_stream(tiny_plan: Planner) -> None:
    """A stream given by number leaves the streams before it empty."""
    third = {**RESNET_S, "recipe": {"epochs": 5, "views": {"stream": 2}}}
    assert the_logits(tiny_plan(students=[VIT_S, third])).epochs == (2, 0, 5)
    longer = {**RESNET_S, "recipe": {"epochs": 7}}
    assert the_logits(tiny_plan(students=[VIT_S, longer], seeds=[4, 5, 6], view_streams=2)).epochs == (7, 7)
    # Two seeds use two of the four streams.
    assert the_logits(tiny_plan(seeds=[4, 5], view_streams=4)).epochs == (2, 2)


def test_units_come_in_the_order_in_which_cells_ask_for_them(tiny_plan: Planner) -> None:
    stage = with_epochs(the_logits(tiny_plan()), 2, 0, 1)
    assert stage.units == (LogitsUnit(stream=0, epoch=0), LogitsUnit(stream=2, epoch=0), LogitsUnit(stream=0, epoch=1))
    assert [unit.file for unit in stage.units] == [
        "stream-000-epoch-00000.safetensors",
        "stream-002-epoch-00000.safetensors",
        "stream-000-epoch-00001.safetensors",
    ]


def test_a_policy_with_few_views_keeps_each_of_them(tiny_plan: Planner) -> None:
    plain = the_logits(tiny_plan(recipe=recipe()))
    assert plain.keeps_every_view
    assert [unit.file for unit in plain.units] == ["view-00000.safetensors"]
    flips = the_logits(tiny_plan(recipe=recipe(epochs=3, horizontal_flip=True)))
    assert [unit.file for unit in flips.units] == ["view-00000.safetensors", "view-00001.safetensors"]


@pytest.mark.parametrize(
    ("epochs", "seeds", "streams", "every_view", "units"),
    [
        (162, [0], 1, False, 162),
        (163, [0], 1, True, 162),
        (81, [0, 1], 2, False, 162),
        (55, [0, 1, 2], 3, True, 162),
        (163, [0, 1], 1, True, 162),
        (54, [0, 1, 2], 3, False, 162),
    ],
)
def test_crops_by_four_pixels_and_flips_have_162_views(
    tiny_plan: Planner, epochs: int, seeds: list[int], streams: int, every_view: bool, units: int
) -> None:
    """9 x 9 places x 2. They are all kept exactly when that is fewer than the epochs of all streams."""
    policy = recipe(epochs=epochs, crop_padding=4, horizontal_flip=True)
    stage = the_logits(tiny_plan(recipe=policy, seeds=seeds, view_streams=streams))
    assert stage.views.distinct == 162
    assert stage.keeps_every_view is every_view
    assert len(stage.units) == units
    assert all((unit.view is not None) is every_view for unit in stage.units)


@pytest.mark.parametrize(
    "views",
    [
        {"rand_augment": {}},
        {"color_jitter": {"hue": 0.1}},
        {"cutout": 2},
        {"random_erasing": {}},
        {"mixing": {"mixup_alpha": 0.2}},
    ],
)
def test_views_that_cannot_be_counted_off_are_kept_by_epoch(tiny_plan: Planner, views: dict[str, Any]) -> None:
    stage = the_logits(tiny_plan(recipe=recipe(epochs=500, **views)))
    assert not stage.keeps_every_view
    assert len(stage.units) == 500


def test_seeds_take_the_view_streams_in_turn_and_pairs_share_theirs(tiny_plan: Planner) -> None:
    plan = tiny_plan(seeds=[7, 5, 9], view_streams=2)
    for title, cell in cells(plan).items():
        assert cell.recipe.views.stream == {7: 0, 5: 1, 9: 0}[cell.seed], title
    assert the_logits(plan).epochs == (2, 2)
    assert {cell.logits.id for cell in plan.cells if cell.logits is not None} == {the_logits(plan).id}


def test_one_view_stream_is_shared_by_all_seeds(tiny_plan: Planner) -> None:
    plan = tiny_plan(seeds=[7, 5, 9])
    assert {cell.recipe.views.stream for cell in plan.cells} == {0}
    assert the_logits(plan).epochs == (2,)


def test_another_stream_of_views_moves_the_cells_that_see_it_and_nothing_else(tiny_plan: Planner) -> None:
    one, two = tiny_plan(), tiny_plan(view_streams=2)
    before, after = cells(one), cells(two)
    assert before.keys() == after.keys()
    assert {title for title in before if before[title].id != after[title].id} == {
        "ViT-S alone, seed 1",
        "ViT-S from ResNet-T, seed 1",
        "ResNet-S alone, seed 1",
        "ResNet-S from ResNet-T, seed 1",
    }
    assert [stage.id for stage in one.teachers] == [stage.id for stage in two.teachers]
    assert [stage.id for stage in one.logits] == [stage.id for stage in two.logits]


def test_online_targets_need_no_logits_but_the_teacher(tiny_plan: Planner) -> None:
    cached, online = tiny_plan(), tiny_plan(targets="online")
    assert online.logits == ()
    before, after = cells(cached), cells(online)
    assert before.keys() == after.keys()
    (teacher,) = online.teachers
    for title, cell in after.items():
        if cell.mode == "baseline":
            assert cell.targets is None
            assert cell.needs == (online.data,)
            assert cell.id == before[title].id
        else:
            assert (cell.targets, before[title].targets) == ("online", "cached")
            assert cell.needs == (online.data, teacher)
            assert cell.inputs() == {"dataset": online.data.id, "teacher": teacher.id}
            assert before[title].inputs() == {"dataset": cached.data.id, "logits": the_logits(cached).id}
            assert cell.id != before[title].id
    assert set(online.titles().values()) == set(cached.titles().values()) - {"logits of teacher ResNet-T"}


def test_how_logits_are_stored_is_nothing_to_online_cells(tiny_plan: Planner) -> None:
    first, second = tiny_plan(targets="online"), tiny_plan(targets="online", logits={"dtype": "float32"})
    assert [stage.id for stage in first.stages] == [stage.id for stage in second.stages]


@pytest.mark.parametrize(
    "changes",
    [
        {"targets": "online"},
        {"view_streams": 2},
        {"logits": {"dtype": "float32", "top_k": 3}},
        {
            "recipe": recipe(
                crop_padding=1,
                rand_augment={"magnitude": 3},
                color_jitter={"hue": 0.2},
                random_erasing={"area": [0.1, 0.2]},
                mixing={"mixup_alpha": 0.2, "cutmix_alpha": 1},
            )
        },
    ],
)
def test_stages_of_every_kind_survive_json(tiny_plan: Planner, changes: dict[str, Any]) -> None:
    for stage in tiny_plan(**changes).stages:
        again = stage_from_json(stage_to_json(stage))
        assert again == stage
        assert again.id == stage.id
