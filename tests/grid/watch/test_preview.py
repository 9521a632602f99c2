"""What stages would cost, before any of them runs."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from grid.contract.units import sized
from grid.plan import Plan
from grid.watch.preview import predictions_bytes, print_plan, stage_bytes, stage_costs
from kd.models.build import ModelFacts

Planner = Callable[..., Plan]

# Multiply-adds of one forward pass.
FACTS = {
    name: ModelFacts(parameters=1, size_bytes=1, macs=macs)
    for name, macs in (("teachers/ResNet-T", 1000), ("students/ViT-S", 10), ("students/ResNet-S", 7))
}

TEACHER, LOGITS = "teacher ResNet-T", "logits of teacher ResNet-T"
ALONE, FROM = "ViT-S alone, seed 0", "ViT-S from ResNet-T, seed 0"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # A step is three passes, of 60 images in each of two epochs; logits are one pass for each epoch.
        ({}, {TEACHER: 360_000, LOGITS: 120_000, ALONE: 3600, FROM: 3600}),
        # The teacher's pass in each step.
        ({"targets": "online"}, {TEACHER: 360_000, ALONE: 3600, FROM: 123_600}),
        ({"view_streams": 2}, {TEACHER: 360_000, LOGITS: 240_000, ALONE: 3600, FROM: 3600}),
        # Nine views are all there are.
        (
            {"recipe": {"epochs": 100, "batch_size": 20, "views": {"crop_padding": 1}}},
            {TEACHER: 18_000_000, LOGITS: 540_000, ALONE: 180_000, FROM: 180_000},
        ),
    ],
)
def test_costs_are_multiply_adds(tiny_plan: Planner, changes: dict[str, Any], expected: dict[str, int]) -> None:
    plan = tiny_plan(**changes)
    titles, costs = plan.titles(), stage_costs(plan, FACTS)
    shown = {titles[stage]: cost for stage, cost in costs.items()}
    assert {title: cost for title, cost in shown.items() if title in (TEACHER, LOGITS, ALONE, FROM)} == expected


def test_room_is_planned_for_predictions_where_they_are_kept(tiny_plan: Planner) -> None:
    """Two bytes for each class of each image of val and test, of teachers and cells alike."""
    kept, not_kept = tiny_plan(), tiny_plan(resources={"keep_predictions": False})
    assert [stage.id for stage in kept.stages] == [stage.id for stage in not_kept.stages]
    splits = kept.data.dataset.splits
    each = 2 * 10 * (splits["val"] + splits["test"])
    assert predictions_bytes(kept) == {stage.id: each if stage.is_trained else 0 for stage in kept.stages}
    assert set(predictions_bytes(not_kept).values()) == {0}
    sizes = stage_bytes(not_kept, FACTS)
    assert stage_bytes(kept, FACTS) == {of: size + predictions_bytes(kept)[of] for of, size in sizes.items()}
    shown = []
    for plan in (kept, not_kept):
        file = io.StringIO()
        print_plan(plan, set(), FACTS, Console(file=file, width=200))
        shown.append(next(line for line in file.getvalue().splitlines() if line.startswith("Room on the storage")))
    trained = sum(stage.is_trained for stage in kept.stages)
    assert shown[0].endswith(f", {sized(trained * each)} of it for predictions")
    assert "predictions" not in shown[1]


@pytest.mark.parametrize("width", [40, 60, 200])
def test_a_dry_run_folds_ids_and_labels_and_cuts_none(tiny_plan: Planner, width: int) -> None:
    plan, file = tiny_plan(), io.StringIO()
    print_plan(plan, set(), FACTS, Console(file=file, width=width))
    text = file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    column = re.search(r"^Stage +", text, re.MULTILINE)
    assert column is not None
    cells = [line[: len(column[0])].strip() for line in text[column.end() :].splitlines()[1:]]
    assert "".join(cells).startswith("".join(stage.id for stage in plan.stages))
