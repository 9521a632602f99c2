"""What stages would cost, before any of them runs."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from grid.plan import Plan
from grid.watch.preview import print_plan, stage_costs
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
