"""Prepared images that changed on disk are prepared again, and whole ones are read through once a machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import grid.work.dataset
from grid.plan import Plan
from grid.private import PLACE
from grid.store.standing import look
from grid.store.store import Store
from grid.work.dataset import open_prepared, opened
from grid.work.execute import Runtime
from kd.data.sources import DatasetError
from tests.grid.running import cell_of, prepare, train

Planner = Callable[..., Plan]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are read through."""
    folders: list[Path] = []
    check = grid.work.dataset.check_fingerprint
    monkeypatch.setattr(grid.work.dataset, "check_fingerprint", lambda data, at: (folders.append(at), check(data, at)))
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


def put(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Store, Plan], None]:
    def put_there(store: Store, plan: Plan) -> None:
        file = Path(store.url) / plan.data.folder / name
        array = change(np.load(file))
        file.unlink()
        np.save(file, array)

    return put_there


def cut(store: Store, plan: Plan) -> None:
    file = Path(store.url) / plan.data.folder / "test_images.npy"
    file.write_bytes(file.read_bytes()[:200])


def without_facts(store: Store, plan: Plan) -> None:
    store.write(f"{plan.data.folder}/dataset.json", b"{}")


DAMAGES: dict[str, tuple[Callable[[Store, Plan], None], str]] = {
    "other pixels": (change, "its images or labels changed after it was prepared"),
    "3 labels": (put("train_labels.npy", lambda labels_N: labels_N[:3]), "not a label for each of 60 images"),
    "9x9 images": (
        put("val_images.npy", lambda images_NHWC: np.zeros((len(images_NHWC), 9, 9, 1), np.uint8)),
        "val is (20, 9, 9, 1), (20, 8, 8, 1) were planned",
    ),
    "floats": (put("test_images.npy", lambda images_NHWC: images_NHWC / 255), "test_images.npy holds float64"),
    "fewer images": (put("val_images.npy", lambda images_NHWC: images_NHWC[:5]), "not a label for each of 5 images"),
    "half a file": (cut, "prepared data set"),
    "no facts": (without_facts, "prepared data set"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_images_that_changed_are_prepared_again(
    tmp_path: Path, plan: Plan, runtime: Runtime, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    store = Store(str(tmp_path))
    prepare(plan, store, runtime)
    folder = tmp_path / plan.data.folder
    whole = {path.name: path.read_bytes() for path in [*folder.glob("*.npy"), folder / "dataset.json"]}
    damage, reason = DAMAGES[what]
    damage(store, plan)
    assert len(opened(plan.data, store, runtime).train) == 60
    (line,) = caplog.messages
    assert str(folder) in line
    assert reason in line
    assert line.endswith("; it is prepared again")
    assert {name: (folder / name).read_bytes() for name in whole} == whole
    assert store.is_done(plan.data)
    assert store.names(plan.data.folder) == sorted([*whole, "identity.json", "record.json"])
    caplog.clear()
    opened(plan.data, store, runtime)
    assert caplog.messages == []


def test_planning_sees_files_of_other_sizes(tmp_path: Path, plan: Plan, runtime: Runtime) -> None:
    store = Store(str(tmp_path))
    prepare(plan, store, runtime)
    cut(store, plan)
    stands = look(plan, store)
    assert plan.data.id not in stands.done
    place = store.location(f"{plan.data.folder}/test_images.npy")
    assert stands.lines == (f"{place}: has 200 bytes, its record says 6528; it is computed again",)


def test_images_that_changed_far_from_their_source_are_left_to_the_next_launch(
    tmp_path: Path, plan: Plan, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, cell = Store(str(tmp_path)), cell_of(plan, "baseline")
    prepare(plan, store, runtime)
    change(store, plan)

    def away(*args: object, **how: object) -> None:
        raise DatasetError("no folder of images here")

    with monkeypatch.context() as patch:
        patch.setattr(grid.work.dataset, "prepare", away)
        assert train(cell, store, runtime) == (
            f"DatasetError: prepared data set {tmp_path / plan.data.folder}: its images or labels changed after it was "
            "prepared; it cannot be prepared again here (DatasetError: no folder of images here): launch the grid "
            "again where its images are"
        )
    stands = look(plan, store)
    assert plan.data.id not in stands.done
    place = store.location(f"{plan.data.folder}/dataset.json")
    assert stands.lines == (
        f"{place}: its images, or these facts of them, are not what was prepared; it is computed again",
    )
    prepare(plan, store, runtime)
    assert plan.data.id in look(plan, store).done
    assert train(cell, store, runtime) is None


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
