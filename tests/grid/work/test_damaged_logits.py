"""Logits that are gone, damaged or of another teacher are made again and never learned from."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import grid.work.teacher_logits
from grid.contract.files.layout import RECORD
from grid.plan import LogitsStage, Plan
from grid.store.store import CHECKPOINT, Store
from grid.work.execute import Runtime
from grid.work.teacher_logits import LogitsCache
from kd.data.dataset import open_dataset
from kd.logits import StoredLogits, logits_to_bytes
from tests.conftest import tiny_grid
from tests.grid.running import (
    WatchedStore,
    cell_of,
    compute,
    curve,
    holds,
    prepare,
    results,
    retrain,
    saving_every_step,
    train,
    weights_bytes,
    weights_path,
)

Planner = Callable[..., Plan]
Damage = Callable[[bytes], bytes | None]

CPU = torch.device("cpu")


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def of_another_teacher(data: bytes) -> bytes:
    """A whole, sound file with other logits."""
    return logits_to_bytes(StoredLogits(torch.zeros(60, 10, dtype=torch.float16), 10), fingerprint="0" * 32)


# What is seen without reading a file's contents, and the reason that is given.
BY_HEADER: dict[str, tuple[Damage, str]] = {
    "truncated": (lambda data: data[:-1], "damaged: "),
    "half": (lambda data: data[: len(data) // 2], "damaged: "),
    "cut in its header": (lambda data: data[:40], "damaged: no readable header"),
    "empty": (lambda data: b"", "damaged: "),
    "longer": (lambda data: data + b"\0", "damaged: "),
    "not logits": (lambda data: b"<html>504 Gateway Timeout</html>" * 9, "damaged: no readable header"),
    "another teacher": (of_another_teacher, "computed from something else (000000000000"),
}
BY_CONTENTS: dict[str, tuple[Damage, str]] = {
    "one bit of the last logit": (lambda data: flipped(data, len(data) - 1), "damaged: "),
    "one bit in the middle": (lambda data: flipped(data, len(data) // 2), "damaged: "),
    "gone": (lambda data: None, "is computed again"),
}
EVERY_DAMAGE = BY_HEADER | BY_CONTENTS


@pytest.fixture
def plan(tiny_plan: Planner) -> Plan:
    recipe = {"epochs": 3, "batch_size": 20, "views": {"crop_padding": 1}}
    return tiny_plan(seeds=[0], recipe=recipe, students=tiny_grid()["students"][1:])


def damage(store: Store, path: str, change: Damage) -> None:
    data = change(store.read(path))
    if data is None:
        store.remove(path)
    else:
        store.write(path, data)


def cache_of(stage: LogitsStage, store: Store) -> LogitsCache:
    return LogitsCache(stage, store, open_dataset(store.local_folder(stage.teacher.data.folder)), CPU)


@pytest.mark.parametrize("kind", BY_HEADER)
def test_computing_logits_replaces_a_file_that_is_not_sound(
    tmp_path: Path, plan: Plan, runtime: Runtime, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    store, (stage,) = Store(str(tmp_path)), plan.logits
    prepare(plan, store, runtime)
    path = f"{stage.folder}/{stage.units[1].file}"
    sound = store.read(path)
    change, reason = BY_HEADER[kind]
    damage(store, path, change)
    assert compute(stage, store, runtime) is None
    assert holds(store, path, sound)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert path in warning
    assert reason in warning
    assert warning.endswith("it is computed again")


@pytest.mark.long
@pytest.mark.parametrize("kind", EVERY_DAMAGE)
@pytest.mark.parametrize("file", ["unit", "plain"])
def test_a_cell_replaces_a_file_that_is_not_sound_and_learns_the_same(
    tmp_path: Path, plan: Plan, runtime: Runtime, caplog: pytest.LogCaptureFixture, kind: str, file: str
) -> None:
    """The last epoch's file, damaged while the cell is in its first; or the val images', before it starts."""
    store, (stage,) = Store(str(tmp_path / "damaged")), plan.logits
    whole = Store(str(tmp_path / "whole"))
    cell = cell_of(plan, "distilled")
    for each in (store, whole):
        prepare(plan, each, runtime)
    assert train(cell, whole, runtime) is None
    assert caplog.records == []

    path = f"{stage.folder}/{stage.units[2].file if file == 'unit' else 'val.safetensors'}"
    change, reason = EVERY_DAMAGE[kind]
    checkpoints: list[str] = []

    def meanwhile(written: str) -> None:
        if written.endswith(CHECKPOINT):
            checkpoints.append(written)
            if len(checkpoints) == 1:
                damage(store, path, change)

    if file == "plain":
        damage(store, path, change)
        assert train(cell, store, runtime) is None
    else:
        assert train(cell, WatchedStore(store.url, meanwhile), saving_every_step(runtime)) is None
        assert len(checkpoints) == 3 * 3 - 1
    (warning,) = [r.getMessage() for r in caplog.records]
    assert Path(path).name in warning
    assert reason in warning
    assert warning.endswith("it is computed again")
    assert holds(store, path, whole.read(path))
    assert weights_bytes(store, cell) == weights_bytes(whole, cell)
    assert curve(store, cell).equals(curve(whole, cell))
    assert results(store.record(cell)) == results(whole.record(cell))


@pytest.mark.long
@pytest.mark.parametrize("stored_as", [{}, {"top_k": 3}], ids=["whole", "top_k"])
def test_any_single_damaged_byte_of_a_file_is_noticed(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, stored_as: dict[str, int]
) -> None:
    """Of the header with its names, types and places as of the numbers after it."""
    plan = tiny_plan(seeds=[0], students=tiny_grid()["students"][1:], logits=stored_as)
    store, (stage,) = Store(str(tmp_path)), plan.logits
    prepare(plan, store, runtime)
    path = f"{stage.folder}/val.safetensors"
    sound, cache, every_sample = store.read(path), cache_of(stage, store), torch.arange(20)
    expected = cache.plain("val").at(every_sample, temperature=4.0)
    header = 8 + int.from_bytes(sound[:8], "little")
    used = []
    for place in [*range(header), *range(header, len(sound), 37)]:
        for mask in (1, 4, 0x80):
            store.write(path, sound[:place] + bytes([sound[place] ^ mask]) + sound[place + 1 :])
            read = cache.plain("val").at(every_sample, temperature=4.0)
            if not torch.equal(read, expected):
                used.append((place, mask))
    assert used == []


def test_a_policy_whose_every_view_is_kept_is_repaired_too(tmp_path: Path, plan: Plan, runtime: Runtime) -> None:
    (planned,) = plan.logits
    stage = LogitsStage(teacher=planned.teacher, views=planned.views, epochs=(10,))
    assert stage.keeps_every_view
    cell = cell_of(plan, "distilled").model_copy(update={"logits": stage})
    store, whole = Store(str(tmp_path / "damaged")), Store(str(tmp_path / "whole"))
    for each in (store, whole):
        prepare(plan, each, runtime)
        assert compute(stage, each, runtime) is None
    path = f"{stage.folder}/view-00004.safetensors"
    damage(store, path, lambda data: flipped(data, len(data) - 1))
    for each in (store, whole):
        assert train(cell, each, runtime) is None
    assert holds(store, path, whole.read(path))
    assert weights_bytes(store, cell) == weights_bytes(whole, cell)


def test_a_cell_whose_teacher_was_trained_to_other_weights_uses_none_of_the_old_logits(
    tmp_path: Path, plan: Plan, runtime: Runtime
) -> None:
    """As when another launch retrains the teacher between this one's logits and its cells."""
    store, fresh = Store(str(tmp_path / "stale")), Store(str(tmp_path / "fresh"))
    (stage,), (teacher,), cell = plan.logits, plan.teachers, cell_of(plan, "distilled")
    for each in (store, fresh):
        prepare(plan, each, runtime)
        retrain(teacher, each)
    assert compute(stage, fresh, runtime) is None
    for each in (store, fresh):
        assert train(cell, each, runtime) is None
    assert weights_bytes(store, cell) == weights_bytes(fresh, cell)
    for unit in stage.units:
        path = f"{stage.folder}/{unit.file}"
        assert holds(store, path, fresh.read(path))
    assert store.record(cell).teacher_sha256 == store.record(teacher).weights_sha256


@pytest.mark.parametrize("targets", ["cached", "online"])
def test_damaged_weights_of_a_teacher_teach_nobody(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, targets: str
) -> None:
    """The teacher's record says what its weights hash to, and the logits and cells built on it repeat that."""
    plan = tiny_plan(seeds=[0], students=tiny_grid()["students"][1:], targets=targets)
    store, (teacher,) = Store(str(tmp_path)), plan.teachers
    prepare(tiny_plan(seeds=[0], targets="online"), store, runtime)
    path = weights_path(store, teacher)
    damage(store, path, lambda data: flipped(data, len(data) - 2))
    error = compute(plan.logits[0], store, runtime) if plan.logits else None
    error = train(cell_of(plan, "distilled"), store, runtime) if targets == "online" else error
    assert error is not None
    assert path in error
    assert not any(store.exists(f"{stage.folder}/{RECORD}") for stage in (*plan.logits, *plan.cells))


def test_an_object_store_gives_the_same_bits_as_a_folder(tmp_path: Path, plan: Plan, runtime: Runtime) -> None:
    local, remote = Store(str(tmp_path / "runs")), Store(f"memory://{uuid.uuid4().hex}")
    cell = cell_of(plan, "distilled")
    for store in (local, remote):
        prepare(plan, store, runtime)
        assert train(cell, store, runtime) is None
    assert weights_bytes(remote, cell) == weights_bytes(local, cell)
    (stage,) = plan.logits
    for unit in stage.units:
        path = f"{stage.folder}/{unit.file}"
        assert holds(remote, path, local.read(path))


def test_a_stale_copy_on_this_machine_is_fetched_again_before_anything_is_computed(
    tmp_path: Path, plan: Plan, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine has written the file anew; this one still has its copy of the old one."""
    store, (stage,) = Store(f"memory://{uuid.uuid4().hex}"), plan.logits
    prepare(plan, store, runtime)
    path = f"{stage.folder}/test.safetensors"
    copy = store.local_file(path)
    expected = cache_of(stage, store).plain("test").values.clone()
    copy.write_bytes(of_another_teacher(b""))

    def refuse(*args: object) -> None:
        raise AssertionError("the teacher is loaded")

    monkeypatch.setattr(grid.work.teacher_logits, "load_teacher", refuse)
    assert torch.equal(cache_of(stage, store).plain("test").values, expected)
