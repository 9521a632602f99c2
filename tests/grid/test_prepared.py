"""Prepared images that changed on disk train nobody, and whole ones are read through once a machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import grid.prepared
from grid.plan import Plan
from grid.prepared import open_prepared
from grid.private import PLACE
from grid.stages import Runtime
from grid.store import Store
from kd.data.sources import DatasetError
from tests.grid.running import cell_of, prepare, train

Planner = Callable[..., Plan]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are read through."""
    folders: list[Path] = []
    check = grid.prepared.check_fingerprint
    monkeypatch.setattr(grid.prepared, "check_fingerprint", lambda data, at: (folders.append(at), check(data, at)))
    return folders


@pytest.fixture
def plan(tiny_plan: Planner) -> Plan:
    return tiny_plan(seeds=[0], teachers=[], modes=["baseline"])


def change(store: Store, plan: Plan) -> None:
    """Other pixels, in a file of the same size and, as far as anybody may set it, of the same time."""
    file = Path(store.url) / plan.data.folder / "train_images.npy"
    before = file.stat()
    images_NHWC = np.load(file)
    with open(file, "r+b") as opened:
        opened.seek(before.st_size - images_NHWC.nbytes)
        opened.write((255 - images_NHWC).tobytes())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_images_that_changed_fail_their_stages_and_say_the_way_out(
    tmp_path: Path, plan: Plan, runtime: Runtime
) -> None:
    store = Store(str(tmp_path))
    prepare(plan, store, runtime)
    first, second = cell_of(plan, "baseline"), cell_of(plan, "baseline", student="vit_tiny_patch16_224")
    assert train(first, store, runtime) is None
    change(store, plan)
    folder = tmp_path / plan.data.folder
    assert train(second, store, runtime) == (
        f"DatasetError: prepared data set {folder}: its images or labels changed after it was prepared; delete the "
        "folder to have it made again"
    )
    store.remove_folder(plan.data.folder)
    assert not store.is_done(plan.data)
    prepare(plan, store, runtime)
    assert train(second, store, runtime) is None


def test_they_are_read_through_once_while_they_stay_as_they_are(
    tmp_path: Path, plan: Plan, runtime: Runtime, looked: list[Path]
) -> None:
    store = Store(str(tmp_path))
    prepare(plan, store, runtime)
    for _ in range(3):
        open_prepared(plan.data, store)
    assert len(looked) == 1
    change(store, plan)
    for _ in range(2):
        with pytest.raises(DatasetError, match="changed after it was prepared"):
            open_prepared(plan.data, store)
    assert len(looked) == 3


def test_without_a_place_of_ones_own_they_are_read_through_each_time(
    tmp_path: Path, plan: Plan, runtime: Runtime, looked: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "runs"))
    prepare(plan, store, runtime)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(PLACE, str(tmp_path / "file" / "cache"))
    for _ in range(2):
        open_prepared(plan.data, store)
    assert len(looked) == 2


def test_copies_of_an_object_stores_files_are_read_through_too(
    plan: Plan, runtime: Runtime, looked: list[Path]
) -> None:
    store = Store("memory://prepared")
    prepare(plan, store, runtime)
    for _ in range(2):
        assert len(open_prepared(plan.data, store).train) > 0
    assert len(looked) == 1
    store.remove_folder("datasets")
