"""`launch.py --status` and the tables say the same of what runs, whatever lies on the storage."""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from analysis import load_grid
from analysis.cli import main
from analysis.read.load import load_grids
from grid.plan import CellStage, Plan, Stage
from grid.store.lease import Holder
from tests.grid.written import Written, alone
from tests.object_store import BUCKET

Planner = Callable[..., Plan]

# What a table calls it. What was worked on and is silent, or waits, is not there.
IN_TABLES = {"silent": "missing", "waiting": "missing", "blocked": "missing"}
ELSEWHERE = {"host": "far", "machine": "another boot", "pid": 1, "born": "1"}


def ago(**how: float) -> str:
    return (datetime.now(UTC) - timedelta(**how)).isoformat(timespec="seconds")


def nothing(written: Written, cell: CellStage) -> None:
    """Nobody has begun it."""


def tells(**how: float) -> Callable[[Written, CellStage], None]:
    return lambda written, cell: written.progress(cell, 1, 2, at=ago(**how), started_at=ago(hours=2))


def holds(*, launch: str = "launch-2", number: int = 1, **how: float) -> Callable[[Written, CellStage], None]:
    return lambda written, cell: written.lease(cell, number, at=ago(**how), launch=launch, **ELSEWHERE)


def holds_here(**facts: Any) -> Callable[[Written, CellStage], None]:
    """By this very process, or with these facts by one that was here."""
    return lambda written, cell: written.lease(
        cell, 1, **asdict(replace(Holder.here("launch-2"), at=ago(seconds=1), **facts))
    )


def fails(**how: Any) -> Callable[[Written, CellStage], None]:
    return lambda written, cell: written.failed(cell, "OSError: no", finished_at=ago(**how) if how else None)


def writes(name: str, data: bytes) -> Callable[[Written, CellStage], None]:
    return lambda written, cell: written.store.write(f"{cell.folder}/{name}", data)


def holds_of_another_version(written: Written, stage: CellStage) -> None:
    writes("lease-0001.json", b'{"at": "%s"}' % ago(seconds=5).encode())(written, stage)


STATES: dict[str, tuple[list[Callable[[Written, CellStage], None]], str]] = {
    "no sign": ([nothing], "waiting"),
    "fresh progress": ([tells(minutes=1)], "running"),
    "old progress": ([tells(minutes=31)], "silent"),
    "a fresh lease alone": ([holds(seconds=5)], "running"),
    "a fresh lease of this process": ([holds_here()], "running"),
    "a lease of a process of this machine that is gone": ([tells(seconds=5), holds_here(born="1")], "silent"),
    "a fresh lease of another machine, old progress": ([tells(hours=1), holds(seconds=5)], "running"),
    "an old lease, fresh progress": ([tells(seconds=5), holds(minutes=3)], "silent"),
    "an old lease, old progress": ([tells(hours=1), holds(hours=1)], "silent"),
    "the later of two leases": ([holds(number=9, hours=1), holds(number=10, seconds=5)], "running"),
    "a lease that cannot be read, fresh progress": ([tells(seconds=5), writes("lease-0001.json", b"{")], "running"),
    "a lease of another version": ([holds_of_another_version], "running"),
    "progress that cannot be read": ([writes("progress.json", b"[]")], "waiting"),
    "a failure": ([fails(minutes=5)], "failed"),
    "a failure, and progress from before it": ([tells(minutes=6), fails(minutes=5)], "failed"),
    "a failure, and progress after it": ([tells(minutes=4), fails(minutes=5)], "running"),
    "a failure, and a lease of its launch": ([holds(launch="launch-1", seconds=5), fails(minutes=5)], "failed"),
    "a failure, and a lease of another launch": ([holds(seconds=5), fails(minutes=5)], "running"),
    "a failure, and a silent launch after it": ([holds(minutes=3), fails(minutes=5)], "silent"),
    "a failure of nobody knows when": ([tells(seconds=5), fails()], "failed"),
    "a failure of the future": ([tells(seconds=5), fails(hours=-3)], "failed"),
}


def said_of(written: Written, stage: Stage) -> tuple[str, str]:
    """By the status, and by the table."""
    status = written.status(datetime.now(UTC))
    stages = load_grid(written.store.url, written.plan.spec.name).stages
    told = {one.id: one.state for one in status.stages}
    shown = dict(stages.select("stage_id", "status").iter_rows())
    assert shown == {i: IN_TABLES.get(state, state) for i, state in told.items()}
    return told[stage.id], shown[stage.id]


@pytest.mark.parametrize("what", STATES)
def test_both_say_the_same_of_a_stage(tiny_plan: Planner, tmp_path: Path, what: str) -> None:
    written = Written(tiny_plan(seeds=[0]), str(tmp_path), at=ago(hours=3) if "fail" not in what else ago(minutes=9))
    cell, other = alone(written.plan)
    written.done(written.plan.data, other, finished_at=ago(hours=1))
    lay, state = STATES[what]
    for write in lay:
        write(written, cell)
    assert said_of(written, cell) == (state, IN_TABLES.get(state, state))


def test_both_say_the_same_of_a_stage_that_is_computed_again(tiny_plan: Planner, tmp_path: Path) -> None:
    written = Written(tiny_plan(seeds=[0]), str(tmp_path), at=ago(hours=3))
    plan = written.plan
    logits = plan.logits[0]
    cell = next(cell for cell in plan.cells if cell.teacher is not None)
    written.done(plan.data, *plan.teachers, logits, *plan.cells, finished_at=ago(hours=1))
    written.done(cell, finished_at=ago(hours=1), teacher_id=plan.teachers[0].id, teacher_sha256="another")
    assert said_of(written, cell) == ("waiting", "missing")
    written.lease(cell, 1, at=ago(seconds=5), launch="launch-2", **ELSEWHERE)
    assert said_of(written, cell) == ("running", "running")
    written.store.remove(f"{cell.folder}/lease-0001.json")
    written.change(written_at=ago(minutes=9))
    written.failed(cell, "OSError: no", finished_at=ago(minutes=5))
    assert said_of(written, cell) == ("failed", "failed")


def test_a_data_set_that_is_made_runs_though_it_tells_no_progress(
    tiny_plan: Planner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = Written(tiny_plan(seeds=[0]), str(tmp_path), at=ago(hours=3))
    written.lease(written.plan.data, 1, at=ago(seconds=5), **ELSEWHERE)
    assert said_of(written, written.plan.data) == ("running", "running")
    assert main(["table", "--storage", str(tmp_path)]) == 0
    assert re.search(rf"\| data set \| {written.plan.data.id} \| — +\|", capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["memory", pytest.param("s3", marks=pytest.mark.s3)])
def test_both_say_the_same_of_a_storage_by_url(
    tiny_plan: Planner, tmp_path: Path, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if kind == "s3":
        request.getfixturevalue("s3")
    url = {"memory": f"memory://{uuid.uuid4().hex}", "s3": f"s3://{BUCKET}/{uuid.uuid4().hex}"}[kind]
    written = Written(tiny_plan(seeds=[0]), url, at=ago(hours=3))
    cell, other = alone(written.plan)
    assert said_of(written, cell)[1] == "missing"
    written.done(written.plan.data, finished_at=ago(hours=1))
    written.progress(cell, 1, 2, at=ago(hours=1))
    written.lease(cell, 1, at=ago(seconds=5), **ELSEWHERE)
    written.progress(other, 1, 2, at=ago(seconds=5))
    written.lease(other, 1, at=ago(minutes=3), **ELSEWHERE)
    assert said_of(written, cell) == ("running", "running")
    assert said_of(written, other) == ("silent", "missing")


def test_of_two_storages_the_one_counts_where_it_runs(tiny_plan: Planner, tmp_path: Path) -> None:
    storages = [Written(tiny_plan(seeds=[0]), str(tmp_path / name), at=ago(hours=3)) for name in ("left", "right")]
    cell = alone(storages[0].plan)[0]
    storages[0].progress(cell, 1, 2, at=ago(hours=2))
    storages[1].lease(cell, 1, at=ago(seconds=5), **ELSEWHERE)
    for order in (storages, storages[::-1]):
        stages = load_grids([one.store.url for one in order]).stages
        assert dict(stages.select("stage_id", "status").iter_rows())[cell.id] == "running"
