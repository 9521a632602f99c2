"""Files are published whole, stages are done only when they are, and nothing leaves the storage."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import queue
import tempfile
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grid.contract.files.layout import FAILURE, RECORD
from grid.contract.record import SCHEMA_VERSION
from grid.errors import UserError
from grid.plan import LogitsStage, Plan, Stage
from grid.store.probe import check_writable
from grid.store.records import RecordError, Value, make_record, record_from_json, record_to_json
from grid.store.store import IDENTITY, IdentityMismatchError, Store
from tests.conftest import with_epochs

Planner = Callable[..., Plan]


@pytest.fixture
def store(store_anywhere: Store) -> Store:
    return store_anywhere


def test_files_come_back(store: Store) -> None:
    store.write("a/b.bin", b"one")
    store.write("a/b.bin", b"two")
    store.write("a/c.bin", b"three")
    assert store.read("a/b.bin") == b"two"
    assert store.names("a") == ["b.bin", "c.bin"]
    assert store.exists("a/b.bin")
    store.remove("a/b.bin")
    store.remove("a/b.bin")
    assert store.names("a") == ["c.bin"]
    assert store.names("nowhere") == []
    assert (store.local_folder("a") / "c.bin").read_bytes() == b"three"
    with pytest.raises(FileNotFoundError):
        store.read("a/b.bin")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x"])
def test_nothing_leaves_the_storage(store: Store, path: str) -> None:
    with pytest.raises(ValueError, match="leaves the storage"):
        store.write(path, b"")


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.write("x/file", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write("x/file", b"new and longer")
    assert store.read("x/file") == b"old"
    assert store.names("x") == ["file"]


def test_a_storage_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"--storage .*file/runs: cannot be written: "):
        check_writable(Store(str(tmp_path / "file" / "runs")))
    with pytest.raises(UserError, match="--storage nosuch://bucket"):
        Store("nosuch://bucket")


def test_a_writable_storage_keeps_no_probe(store: Store) -> None:
    check_writable(store)
    assert store.names("") == []


def test_a_file_is_created_once(store: Store) -> None:
    assert store.create("leases/a", b"first")
    assert not store.create("leases/a", b"second")
    assert not store.create("leases/a", b"first"), "the same bytes of another are another's"
    assert store.read("leases/a") == b"first"
    assert store.names("leases") == ["a"]
    store.remove("leases/a")
    assert store.create("leases/a", b"third")
    assert store.read("leases/a") == b"third"


def race(url: str, start: Any, won: Any, number: int) -> None:
    store = Store(url)
    for turn in range(40):
        start.wait(60)
        if store.create(f"turn-{turn}", b"%d" % number):
            won.put((turn, number))


def who_won(store: Store, won: Any) -> None:
    """Exactly one in each turn, and the file is the winner's."""
    winners = sorted(won.get(timeout=60) for _ in range(40))
    assert [turn for turn, _ in winners] == list(range(40))
    assert [store.read(f"turn-{turn}") for turn, _ in winners] == [b"%d" % number for _, number in winners]
    assert won.empty()


def test_of_many_threads_one_creates_a_file(store: Store) -> None:
    barrier, won = threading.Barrier(8), queue.Queue[Any]()
    threads = [threading.Thread(target=race, args=(store.url, barrier, won, i)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    who_won(store, won)


def test_of_many_processes_one_creates_a_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(6), context.Queue()
    processes = [context.Process(target=race, args=(str(tmp_path), barrier, won, i)) for i in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    who_won(Store(str(tmp_path)), won)


def test_a_link_is_made_whose_answer_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, link = Store(str(tmp_path)), os.link

    def lossy(source: str, target: str, **how: Any) -> None:
        link(source, target, **how)
        raise FileExistsError(errno.EEXIST, "sent again, as NFS does", target)

    monkeypatch.setattr(os, "link", lossy)
    assert store.create("a", b"1")


def test_a_disk_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))

    def refuse(source: str, target: str, **how: Any) -> None:
        raise PermissionError(errno.EPERM, "no links here", target)

    monkeypatch.setattr(os, "link", refuse)
    assert store.create("a", b"1")
    assert not store.create("a", b"2")
    assert store.read("a") == b"1"
    assert store.names("") == ["a"]


def test_a_file_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    Store(str(tmp_path)).write("file", b"in the way")
    with pytest.raises(OSError, match="file"):
        Store(str(tmp_path)).create("file/below", b"1")


def test_folders_are_removed_with_all_in_them(store: Store) -> None:
    store.write("grids/g/ray/one/a", b"1")
    store.write("grids/g/ray/two/b/c", b"2")
    store.remove_folder("grids/g/ray/one")
    assert store.exists("grids/g/ray/two/b/c")
    store.remove_folder("grids/g/ray/two")
    assert store.names("grids/g") == []
    store.remove_folder("grids/nowhere")


def test_a_store_travels_to_workers(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    again = pickle.loads(pickle.dumps(store))
    store.write("x", b"1")
    assert again.read("x") == b"1"


def test_a_stage_is_done_when_its_record_is_there(store: Store, tiny_plan: Planner) -> None:
    cell = tiny_plan().cells[0]
    assert not store.is_done(cell)
    store.claim(cell)
    store.claim(cell)
    store.write(f"{cell.folder}/model-0123456789abcdef.safetensors", b"")
    assert not store.is_done(cell)
    store.write(f"{cell.folder}/{RECORD}", record_to_json(make_record({"stage_id": cell.id, "status": "done"})))
    assert store.is_done(cell)
    assert store.record(cell).stage_id == cell.id


def test_another_computation_under_the_same_id_is_an_error(store: Store, tiny_plan: Planner) -> None:
    cell = tiny_plan().cells[0]
    store.write(f"{cell.folder}/{RECORD}", record_to_json(make_record({"status": "done"})))
    store.write(f"{cell.folder}/{IDENTITY}", b'{"kind":"cell","spec":"another"}')
    with pytest.raises(IdentityMismatchError, match=f"{cell.id}.*another computation.*move that folder away"):
        store.is_done(cell)


def done(store: Store, stage: Stage, **facts: Value) -> None:
    record = make_record({**stage.axes(), "status": "done", **facts})
    store.write(f"{stage.folder}/{RECORD}", record_to_json(record))


def with_logits(store: Store, stage: LogitsStage) -> None:
    """A teacher that is trained, its logits' files and their record."""
    done(store, stage.teacher, weights_sha256="abc")
    for unit in stage.units:
        store.write(f"{stage.folder}/{unit.file}", b"logits")
    done(store, stage, teacher_sha256="abc", epochs=max(stage.epochs))


def test_logits_are_done_with_every_unit_and_the_record(store: Store, tiny_plan: Planner) -> None:
    stage = tiny_plan().logits[0]
    assert not store.is_done(stage)
    with_logits(store, stage)
    assert store.is_done(stage)
    store.remove(f"{stage.folder}/{RECORD}")
    assert not store.is_done(stage), "the record is written last"


def test_a_removed_file_makes_logits_not_done(store: Store, tiny_plan: Planner) -> None:
    stage = tiny_plan().logits[0]
    with_logits(store, stage)
    store.remove(f"{stage.folder}/{stage.units[0].file}")
    assert not store.is_done(stage)
    store.write(f"{stage.folder}/{stage.units[0].file}", b"logits")
    assert store.is_done(stage)


@pytest.mark.parametrize("epochs", [(3,), (2, 1), (0, 1), (10,)])
def test_a_longer_schedule_or_another_stream_needs_more_logits(
    store: Store, tiny_plan: Planner, epochs: tuple[int, ...]
) -> None:
    """Of ten epochs every one of the nine views is kept instead."""
    stage = tiny_plan().logits[0]
    with_logits(store, stage)
    more = with_epochs(stage, *epochs)
    assert more.folder == stage.folder
    assert not store.is_done(more)
    with_logits(store, more)
    assert store.is_done(more)
    assert store.is_done(stage), "what was there still is"


def test_a_shorter_schedule_finds_its_logits_among_more(store: Store, tiny_plan: Planner) -> None:
    stage = tiny_plan().logits[0]
    with_logits(store, with_epochs(stage, 4, 4))
    assert store.is_done(stage)


def test_logits_of_another_training_of_the_teacher_are_not_done(store: Store, tiny_plan: Planner) -> None:
    stage = tiny_plan().logits[0]
    with_logits(store, stage)
    store.remove(f"{stage.teacher.folder}/{RECORD}")
    assert not store.is_done(stage), "nobody knows which teacher they are of"
    done(store, stage.teacher, weights_sha256="def")
    assert store.standing(stage).other == stage.teacher.id
    done(store, stage.teacher, weights_sha256="abc")
    assert store.is_done(stage)


def test_a_file_has_a_size_and_a_start(store: Store) -> None:
    store.write("a/b.bin", b"0123456789")
    assert store.size("a/b.bin") == 10
    assert store.read_start("a/b.bin", 4) == b"0123"
    assert store.read_start("a/b.bin", 100) == b"0123456789"
    store.write("a/empty", b"")
    assert store.size("a/empty") == 0
    assert store.read_start("a/empty", 4) == b""
    for ask in (store.size, lambda path: store.read_start(path, 4), lambda path: store.local_file(path).open()):
        with pytest.raises(FileNotFoundError):
            ask("a/nowhere")


def test_a_local_file_is_the_file_itself_or_a_copy_made_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("a/b/file", b"one")
    path = store.local_file("a/b/file")
    assert path.read_bytes() == b"one"

    def refuse(info: dict[str, Any], target: Path) -> None:
        raise AssertionError(f"{info} is read again")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_fetch", refuse)
        assert store.local_file("a/b/file") == path
    store.write("a/b/file", b"two")
    assert store.local_file("a/b/file").read_bytes() == b"two", "a copy is of one state of the file"
    assert [p.name for p in store.local_file("a/b/file").parent.iterdir()] == ["file"]


def test_copies_of_two_storages_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = (Store(f"memory://{uuid.uuid4().hex}") for _ in range(2))
    first.write("a/file", b"first")
    second.write("a/file", b"second")
    assert first.local_file("a/file").read_bytes() == b"first"
    assert second.local_file("a/file").read_bytes() == b"second"
    assert (second.local_folder("a") / "file").read_bytes() == b"second"


def test_unreadable_records_are_named(store: Store, tiny_plan: Planner) -> None:
    cell = tiny_plan().cells[0]
    store.write(f"{cell.folder}/{RECORD}", b'{"schema_ver')
    with pytest.raises(UserError, match=f"{cell.id}/record.json: not a record"):
        store.record(cell)
    assert store.failure(cell, launch="now") is None
    failed = make_record({"status": "failed", "error": "why", "launch": "now"})
    store.write(f"{cell.folder}/{FAILURE}", record_to_json(failed))
    assert store.failure(cell, launch="another") is None, "what an earlier launch said is not the reason of this one"
    failure = store.failure(cell, launch="now")
    assert failure is not None
    assert failure.error == "why"


def test_records_are_strict_when_written() -> None:
    with pytest.raises(TypeError, match="not fields of a record: tempo"):
        make_record({"tempo": 1})
    with pytest.raises(TypeError, match="seed: expected int, got '0'"):
        make_record({"seed": "0"})
    with pytest.raises(TypeError, match="seed: expected int, got True"):
        make_record({"seed": True})
    assert make_record({"temperature": 4}).temperature == 4.0


def test_old_records_load_and_newer_ones_say_why_not() -> None:
    old = {"schema_version": SCHEMA_VERSION, "stage_id": "x"}
    assert record_from_json(json.dumps(old).encode()).launch is None
    with pytest.raises(RecordError, match=f"schema version {SCHEMA_VERSION + 1}.*update it"):
        record_from_json(json.dumps({"schema_version": SCHEMA_VERSION + 1}).encode())
    for foreign in (b"[]", b"{}", b"\x00", b'"text"'):
        with pytest.raises(RecordError, match="not a record"):
            record_from_json(foreign)
