"""How much a grid will write, told before it runs, and refused where there is no room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grid.errors import UserError
from grid.plan import Plan
from grid.plan.base import FACTS_BYTES, TRAINED_FACTS_BYTES
from grid.store.disk import check_room
from grid.store.store import Store
from grid.watch.preview import inspect_models, stage_bytes
from grid.work.execute import Runtime
from tests.grid.running import prepare

Planner = Callable[..., Plan]
BLOCK = 4096


@pytest.mark.parametrize(
    ("logits", "is_kept"), [({}, True), ({"dtype": "float32"}, True), ({"top_k": 3}, True), ({}, False)]
)
def test_the_estimate_is_what_the_stages_write(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, logits: dict[str, Any], is_kept: bool
) -> None:
    """But for the arrays' headers; all else, in blocks of a disk, is within what is allowed for it."""
    resources = {"keep_predictions": is_kept}
    plan, store = tiny_plan(seeds=[0], logits=logits, resources=resources), Store(str(tmp_path))
    prepare(plan, store, replace(runtime, keep_predictions=is_kept))
    expected = stage_bytes(plan, inspect_models(plan))
    for stage in (plan.data, plan.teachers[0], plan.logits[0]):
        files = [tmp_path / stage.folder / name for name in os.listdir(tmp_path / stage.folder)]
        arrays = [file for file in files if file.suffix in (".npy", ".safetensors")]
        allowed = TRAINED_FACTS_BYTES if stage.kind == "teacher" else FACTS_BYTES
        written, headers = sum(file.stat().st_size for file in arrays), 2**13 + 2**10 * len(arrays)
        assert expected[stage.id] - allowed <= written <= expected[stage.id] - allowed + headers, stage.kind
        assert sum(-(-file.stat().st_size // BLOCK) * BLOCK for file in {*files} - {*arrays}) <= allowed, stage.kind


def test_a_disk_without_room_is_refused_before_anything_runs(
    tmp_path: Path, tiny_plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = tiny_plan(), Store(str(tmp_path))
    written = {stage.id: 2**20 for stage in plan.stages}
    needed = (len(plan.stages) + 4) * 2**20
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(UserError, match=r"^--storage .*: 15\.0 MiB free, grid tiny writes some 15\.0 MiB: free "):
        check_room(plan, set(), written, store)
    check_room(plan, {plan.data.id}, written, store)  # what is there already takes nothing more
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    check_room(plan, {stage.id for stage in plan.stages}, written, store)
