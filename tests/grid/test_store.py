"""Files are published whole, stages are done only when they are, and nothing leaves the storage."""

from __future__ import annotations

import json
import os
import pickle
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from grid.errors import UserError
from grid.plan import Plan
from grid.records import SCHEMA_VERSION, RecordError, make_record, record_from_json, record_to_json
from grid.store import FAILURE, IDENTITY, RECORD, IdentityMismatchError, Store

Planner = Callable[..., Plan]


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same behaviour on a folder and on an object store."""
    return Store(str(tmp_path / "runs") if request.param == "local" else f"memory://{uuid.uuid4().hex}")


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
        Store(str(tmp_path / "file" / "runs")).check_writable()
    with pytest.raises(UserError, match="--storage nosuch://bucket"):
        Store("nosuch://bucket")


def test_a_writable_storage_keeps_no_probe(store: Store) -> None:
    store.check_writable()
    assert store.names("") == []


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
    store.write(f"{cell.folder}/model.safetensors", b"")
    assert not store.is_done(cell)
    store.write(f"{cell.folder}/{RECORD}", record_to_json(make_record({"stage_id": cell.id, "status": "done"})))
    assert store.is_done(cell)
    assert store.record(cell)["stage_id"] == cell.id


def test_another_computation_under_the_same_id_is_an_error(store: Store, tiny_plan: Planner) -> None:
    cell = tiny_plan().cells[0]
    store.write(f"{cell.folder}/{RECORD}", record_to_json(make_record({"status": "done"})))
    store.write(f"{cell.folder}/{IDENTITY}", b'{"kind":"cell","spec":"another"}')
    with pytest.raises(IdentityMismatchError, match=f"{cell.id}.*another computation.*move that folder away"):
        store.is_done(cell)


def test_logits_are_done_as_far_as_they_go(store: Store, tiny_plan: Planner) -> None:
    stage = tiny_plan().logits[0]
    store.write(f"{stage.folder}/{RECORD}", record_to_json(make_record({"epochs": stage.epochs - 1})))
    assert not store.is_done(stage)
    store.write(f"{stage.folder}/{RECORD}", record_to_json(make_record({"epochs": stage.epochs + 1})))
    assert store.is_done(stage)


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
    assert failure["error"] == "why"


def test_records_are_strict_when_written() -> None:
    with pytest.raises(TypeError, match="not fields of a record: tempo"):
        make_record({"tempo": 1})
    with pytest.raises(TypeError, match="seed: expected int, got '0'"):
        make_record({"seed": "0"})
    with pytest.raises(TypeError, match="seed: expected int, got True"):
        make_record({"seed": True})
    assert make_record({"temperature": 4})["temperature"] == 4.0


def test_old_records_load_and_newer_ones_say_why_not() -> None:
    old = {"schema_version": SCHEMA_VERSION, "stage_id": "x"}
    assert record_from_json(json.dumps(old).encode())["launch"] is None
    with pytest.raises(RecordError, match=f"schema version {SCHEMA_VERSION + 1}.*use a newer one"):
        record_from_json(json.dumps({"schema_version": SCHEMA_VERSION + 1}).encode())
    for foreign in (b"[]", b"{}", b"\x00", b'"text"'):
        with pytest.raises(RecordError, match="not a record"):
            record_from_json(foreign)
