"""Whoever has lost its lease publishes nothing, wherever it was stopped: a record stays with its weights and curve."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import time
import uuid
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

import grid.store.lease
import grid.work.training
from grid.contract.files.layout import FAILURE, RECORD
from grid.contract.record import CURVE, WEIGHTS, curve_file, weights_file
from grid.plan import CellStage, LogitsStage, Plan, Stage, stage_from_json, stage_to_json
from grid.store.lease import Lease, Leases
from grid.store.records import make_record
from grid.store.store import CHECKPOINT, TRACEBACK, UNREAD, Store
from grid.work.execute import Runtime, execute
from grid.work.publish import publish
from grid.work.training import run_trainable
from kd.checkpoint import state_dict_to_bytes
from kd.training.errors import StoppedError
from tests.conftest import tiny_grid
from tests.grid.running import cell_of, prepare, saving_every_step, train, weights_bytes
from tests.object_store import BUCKET

Planner = Callable[..., Plan]


@pytest.fixture
def store(store_anywhere: Store) -> Store:
    return store_anywhere


@pytest.fixture
def plan(tiny_plan: Planner) -> Plan:
    recipe = {"epochs": 2, "batch_size": 20, "views": {"crop_padding": 1}}
    return tiny_plan(seeds=[0], students=tiny_grid()["students"][:1], recipe=recipe)


class HeldUp(Store):
    """A storage as a process sees it that is stopped just before it changes a file for the nth time, for as long as
    `meanwhile` takes."""

    def __init__(self, url: str, *, before: str, meanwhile: Callable[[], object], nth: int = 1) -> None:
        super().__init__(url)
        self.before, self.meanwhile, self.left = before, meanwhile, nth

    def _stop(self, how: str, path: str) -> None:
        if fnmatch(f"{how} {path}", self.before):
            self.left -= 1
            if self.left == 0:
                self.meanwhile()

    def write(self, path: str, data: bytes) -> None:
        self._stop("write", path)
        super().write(path, data)

    def create(self, path: str, data: bytes) -> bool:
        self._stop("create", path)
        return super().create(path, data)

    def replace(self, path: str, data: bytes, *, old: bytes | None) -> bool:
        self._stop("replace", path)
        return super().replace(path, data, old=old)

    def remove(self, path: str) -> None:
        self._stop("remove", path)
        super().remove(path)


def taken(store: Store, launch: str, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """The lease of a stage, whoever has it."""
    with monkeypatch.context() as patch:
        patch.setattr(grid.store.lease, "SILENT_SECONDS", -1.0)
        lease = Leases(Store(store.url), launch).take(stage.folder)
    assert lease is not None
    return lease


def leave(store: Store, stage: Stage, launch: str, lease: Lease, **facts: Any) -> None:
    """What a worker publishes in the end."""
    outputs = {WEIGHTS: f"weights of {launch}".encode(), CURVE: f"curve of {launch}".encode()}
    publish(stage, store, stage.axes() | {"launch": launch} | facts, outputs=outputs, holds=lease.holds)


def belongs_together(store: Store, stage: Stage) -> str:
    """Whose the record is, which is with its own weights and curve."""
    record = store.record(stage)
    for name, sha256 in ((weights_file(record), record.weights_sha256), (curve_file(record), record.curve_sha256)):
        assert hashlib.sha256(store.read(f"{stage.folder}/{name}")).hexdigest() == sha256
    assert store.is_done(stage)
    return str(record.launch)


PLACES = {
    "write */model-*": "other",
    "write */curve-*": "other",
    "create */record.json": "other",
    "remove */failure.json": "frozen",
    "remove */failure.txt": "frozen",
}


@pytest.mark.parametrize("before", PLACES)
def test_a_worker_that_was_stopped_before_a_write_changes_nothing_of_another_launch(
    store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    cell = cell_of(plan, "baseline", student="vit_tiny_patch16_224")
    records: list[bytes] = []
    for failure in (FAILURE, TRACEBACK):  # of an earlier launch
        store.write(f"{cell.folder}/{failure}", b"")

    def meanwhile() -> None:
        with taken(store, "other", cell, monkeypatch) as lease:
            if not store.is_done(cell):
                leave(store, cell, "other", lease)
        records.append(store.read(f"{cell.folder}/{RECORD}"))

    frozen = HeldUp(store.url, before=before, meanwhile=meanwhile)
    with taken(store, "frozen", cell, monkeypatch) as lease, contextlib.suppress(StoppedError):
        leave(frozen, cell, "frozen", lease)
    assert belongs_together(store, cell) == PLACES[before]
    assert records == [store.read(f"{cell.folder}/{RECORD}")]


DAMAGED = b'{"schema_version": 99, "stage_id": "from the future"}'


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("before", ["create */record.json", "replace */record.json", "write */record-unread.json"])
def test_a_damaged_record_is_replaced_only_as_it_was_found(
    store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch, before: str, nth: int
) -> None:
    """The second time that a record is created on a disk is after the damaged one was given another name: then another
    launch may create its own first."""
    cell = plan.cells[0]
    store.write(f"{cell.folder}/{RECORD}", DAMAGED)
    came: list[str] = []

    def meanwhile() -> None:
        with taken(store, "other", cell, monkeypatch) as lease:
            leave(store, cell, "other", lease)
        came.append(belongs_together(store, cell))

    frozen = HeldUp(store.url, before=before, meanwhile=meanwhile, nth=nth)
    with taken(store, "frozen", cell, monkeypatch) as lease, contextlib.suppress(StoppedError):
        leave(frozen, cell, "frozen", lease)
    assert belongs_together(store, cell) == (came or ["frozen"])[0]
    assert nth == 2 or came == ["other"]
    assert store.read(f"{cell.folder}/{UNREAD}") == DAMAGED
    assert {name for name in store.names(cell.folder) if name.startswith("record")} == {RECORD, UNREAD}


def test_without_the_lease_not_even_a_damaged_record_is_replaced(
    store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = plan.cells[0]
    store.write(f"{cell.folder}/{RECORD}", b"")
    with taken(store, "frozen", cell, monkeypatch) as lost, taken(store, "other", cell, monkeypatch):
        with pytest.raises(StoppedError):
            leave(store, cell, "frozen", lost)
        record = make_record({"stage_id": cell.id, "status": "done"})
        assert store.commit(cell, record, holds=lost.holds) == "lost"
    assert store.read(f"{cell.folder}/{RECORD}") == b""


def test_a_growing_cache_is_replaced_by_its_holder_and_not_by_one_that_has_less(
    store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = plan.logits[0]
    long = LogitsStage(teacher=short.teacher, views=short.views, epochs=(4,))
    publish(short.teacher, store, short.teacher.axes(), outputs={WEIGHTS: b"w"})

    def compute(stage: LogitsStage, lease: Lease, to: Store) -> None:
        for unit in stage.units:
            store.write(f"{stage.folder}/{unit.file}", b"logits")
        facts = {"epochs": max(stage.epochs), "teacher_sha256": hashlib.sha256(b"w").hexdigest()}
        publish(stage, to, stage.axes() | facts, holds=lease.holds)

    with taken(store, "first", short, monkeypatch) as lease:
        compute(short, lease, store)
    assert not store.is_done(long)

    def meanwhile() -> None:
        with taken(store, "other", long, monkeypatch) as lease:
            compute(long, lease, store)

    longer = LogitsStage(teacher=short.teacher, views=short.views, epochs=(3,))
    frozen = HeldUp(store.url, before="replace */record.json", meanwhile=meanwhile)
    with taken(store, "frozen", longer, monkeypatch) as lease, contextlib.suppress(StoppedError):
        compute(longer, lease, frozen)
    assert store.is_done(long)
    assert store.record(long).epochs == 4


def with_other_bits(monkeypatch: pytest.MonkeyPatch) -> contextlib.AbstractContextManager[pytest.MonkeyPatch]:
    """Trainings that end as on another machine."""
    context = monkeypatch.context()

    @contextlib.contextmanager
    def patched() -> Any:
        with context as patch:
            shifted = lambda model: state_dict_to_bytes({k: v + 1 for k, v in model.state_dict().items()})  # noqa: E731
            patch.setattr(grid.work.training, "weights_to_bytes", shifted)
            yield patch

    return patched()


@pytest.mark.parametrize("before", ["write */checkpoint.pt", "write */model-*", "create */record.json"])
def test_a_training_that_was_stopped_leaves_the_result_of_another_as_it_is(
    tmp_path: Path, plan: Plan, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    store, cell = Store(str(tmp_path)), plan.cells[0]
    prepare(Plan(plan.spec, plan.data, (), (), plan.cells, plan.rows), store, runtime)
    kept: list[bytes] = []

    def meanwhile() -> None:
        with taken(store, "other", cell, monkeypatch), with_other_bits(monkeypatch):
            assert train(cell, store, runtime) is None
        kept.extend([store.read(f"{cell.folder}/{RECORD}"), weights_bytes(store, cell)])

    frozen = HeldUp(store.url, before=before, meanwhile=meanwhile)

    def work() -> None:
        run_trainable(cell, frozen, runtime, leave=lease.leave, holds=lease.holds)

    with taken(store, "frozen", cell, monkeypatch) as lease, contextlib.suppress(StoppedError):
        execute(cell, frozen, runtime, work, holds=lease.holds)
    assert kept == [store.read(f"{cell.folder}/{RECORD}"), weights_bytes(store, cell)]
    belongs_together(store, cell)


def test_an_error_after_the_lease_is_lost_is_no_failure_of_the_stage(
    tmp_path: Path, plan: Plan, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, cell = Store(str(tmp_path)), plan.cells[0]

    def fails() -> None:
        raise ValueError("no")

    with (
        taken(store, "frozen", cell, monkeypatch) as lost,
        taken(store, "other", cell, monkeypatch),
        pytest.raises(StoppedError),
    ):
        execute(cell, store, runtime, fails, holds=lost.holds)
    assert not [name for name in store.names(cell.folder) if name.startswith("failure")]


def _work(url: str, stage_json: str) -> None:
    """As a trial does."""
    stage = stage_from_json(stage_json)
    assert isinstance(stage, CellStage)
    store, runtime = Store(url), saving_every_step(Runtime(launch="frozen").here(threads=1, device="cpu"))
    lease = Leases(store, "frozen").take(stage.folder)
    assert lease is not None

    def work() -> None:
        run_trainable(stage, store, runtime, leave=lease.leave, holds=lease.holds)

    with lease:
        try:
            execute(stage, store, runtime, work, holds=lease.holds)
        except StoppedError:
            os._exit(3)


@pytest.mark.long
@pytest.mark.parametrize("where", ["local", pytest.param("s3", marks=pytest.mark.s3)])
def test_a_process_that_is_stopped_and_continued_leaves_what_another_has_published(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tiny_plan: Planner,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    """With SIGSTOP, past the lease, and SIGCONT."""
    if where == "s3":
        request.getfixturevalue("s3")
    store = Store(str(tmp_path) if where == "local" else f"s3://{BUCKET}/{uuid.uuid4().hex}")
    recipe = {"epochs": 40, "batch_size": 20, "evaluate_every": 40}
    plan = tiny_plan(teachers=[], modes=["baseline"], seeds=[0], students=tiny_grid()["students"][:1], recipe=recipe)
    prepare(plan, store, runtime)
    (cell,) = plan.cells
    frozen = multiprocessing.get_context("spawn").Process(target=_work, args=(store.url, stage_to_json(cell)))
    frozen.start()
    assert frozen.pid is not None
    try:
        until = time.monotonic() + 200
        while not store.exists(f"{cell.folder}/{CHECKPOINT}"):
            assert time.monotonic() < until
            assert frozen.is_alive()
            time.sleep(0.02)
        os.kill(frozen.pid, signal.SIGSTOP)
        with taken(store, "other", cell, monkeypatch), with_other_bits(monkeypatch):
            assert train(cell, store, runtime) is None
        kept = [store.read(f"{cell.folder}/{RECORD}"), weights_bytes(store, cell)]
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
        frozen.join(200)
    assert frozen.exitcode == 3
    assert kept == [store.read(f"{cell.folder}/{RECORD}"), weights_bytes(store, cell)]
    assert json.loads(kept[0])["launch"] == "launch-1"
    belongs_together(store, cell)
