"""A grid's images: found where the user says, and described before anything is planned."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grid.errors import UserError
from grid.plan import Plan, make_plan, stage_from_json, stage_to_json
from grid.private import downloads_folder
from grid.read.datasets import source_of
from grid.read.grid_file import load_grid
from grid.store.store import Store
from grid.work.dataset import prepare_dataset
from grid.work.execute import Runtime, execute
from kd.data.dataset import open_dataset
from tests.images import archive_cifar, noise, png, write_cifar, write_folder, write_parquet


def grid_file(place: Path, /, **dataset: Any) -> str:
    path = place / "mine.yaml"
    spec = {"dataset": dataset, "students": ["small_cnn"], "modes": ["baseline"], "recipe": {"epochs": 1}}
    path.write_text(json.dumps(spec))
    return str(path)


def prepared(plan: Plan, folder: Path) -> Any:
    store, runtime = Store(str(folder)), Runtime(launch="launch-1")
    assert execute(plan.data, store, runtime, lambda: prepare_dataset(plan.data, store, runtime)) is None
    return open_dataset(store.local_folder(plan.data.folder))


@pytest.mark.parametrize("archived", [False, True])
def test_cifar_in_a_folder_of_the_users(tmp_path: Path, archived: bool) -> None:
    written = write_cifar(tmp_path / "data", "cifar10", train=60, test=20)
    if archived:
        archive_cifar(tmp_path / "data", "cifar10")
    plan = make_plan(load_grid(grid_file(tmp_path, name="cifar10", val_size=20), data=str(tmp_path / "data")))
    assert plan.data.spec_payload()["splits"] == {"train": 40, "val": 20, "test": 20}
    dataset = prepared(plan, tmp_path / "runs")
    assert (dataset.test.images_NHWC.numpy() == written["test"][0]).all()


def test_a_cifar_that_was_downloaded_is_kept_with_all_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KD_GRID_CACHE", str(tmp_path / "cache"))
    written = write_cifar(downloads_folder() / "data", "cifar10", train=60, test=20)
    plan = make_plan(load_grid(grid_file(tmp_path, name="cifar10")))
    assert (source_of(plan.data.dataset).read()["test"].images_NHWC == written["test"][0]).all()


def test_parquet_files_as_the_hub_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    for split, count in (("train", 40), ("test", 20)):
        write_parquet(
            folder / f"{split}-00000-of-00001.parquet", [png(i) for i in noise(count)], list(range(10)) * (count // 10)
        )
    plan = make_plan(load_grid(grid_file(tmp_path, name="cifar10"), data=str(tmp_path / "hub")))
    dataset = prepared(plan, tmp_path / "runs")
    assert (len(dataset.train), len(dataset.test), dataset.meta.classes) == (40, 20, 10)


def test_a_data_set_of_the_users_in_a_few_lines(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets", {"train": 20, "test": 4})
    grid = grid_file(tmp_path, name="pets", folder=str(tmp_path / "pets"), image_size=16, val_size=8)
    plan = make_plan(load_grid(grid))
    assert plan.spec.dataset.info.classes == 2
    dataset = prepared(plan, tmp_path / "runs")
    assert dataset.train.images_NHWC.shape == (32, 16, 16, 3)
    assert (len(dataset.val), len(dataset.test)) == (8, 8)


def test_a_stage_carries_the_facts_to_wherever_it_runs(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets", {"train": 20, "test": 4})
    plan = make_plan(load_grid(grid_file(tmp_path, name="pets", folder=str(tmp_path / "pets"))))
    for stage in plan.stages:
        again = stage_from_json(stage_to_json(stage))
        assert again.id == stage.id
        assert again == stage


def test_the_id_follows_the_images_and_not_their_place(tmp_path: Path) -> None:
    ids = {}
    for name, test in (("a", 20), ("b", 20), ("c", 30)):
        write_cifar(tmp_path / name, "cifar10", train=50, test=test)
        ids[name] = make_plan(load_grid(grid_file(tmp_path, name="cifar10"), data=str(tmp_path / name))).data.id
    assert ids["a"] == ids["b"]
    assert ids["a"] != ids["c"]
    assert make_plan(load_grid(grid_file(tmp_path, name="cifar10"))).data.id not in ids.values()


def test_a_known_data_set_is_planned_without_its_files(tmp_path: Path) -> None:
    plan = make_plan(load_grid(grid_file(tmp_path, name="cifar100", val_size=5000)))
    assert plan.data.spec_payload()["splits"] == {"train": 45_000, "val": 5000, "test": 10_000}


@pytest.mark.parametrize(
    ("dataset", "data", "line"),
    [
        ({"name": "cifar10"}, "nowhere", "--data {tmp}/nowhere: no such folder"),
        (
            {"name": "cifar10"},
            ".",
            "--data {tmp}: holds neither cifar-10-batches-py/ nor cifar-10-python.tar.gz nor tra",
        ),
        ({"name": "digits", "test_size": 100}, ".", "--data {tmp}: the grid's data set digits does not ask for it"),
        (
            {"name": "cifar11"},
            None,
            "grid mine: dataset: unknown data set 'cifar11'; known: cifar10, cifar100, digits; or",
        ),
        ({"name": "x", "folder": "{tmp}/none"}, None, "data set x: {tmp}/none has no folder train/"),
        (
            {"name": "x", "parquet": {"train": "{tmp}/t*.parquet"}},
            None,
            "data set x: no file is called {tmp}/t*.parquet",
        ),
        (
            {"name": "x", "parquet": {"train": "a"}, "folder": "b"},
            None,
            "grid mine: dataset: give parquet or folder, not",
        ),
        (
            {"name": "x", "parquet": {"train": "a", "lable": "b"}},
            None,
            "dataset.parquet.lable: unknown key; did you mean 'l",
        ),
        (
            {"name": "cifar10", "test_size": 10},
            None,
            "grid mine: dataset: cifar10 has an official test set of 10000: leave",
        ),
        ({"name": "cifar10", "val_size": 50_000}, None, "grid mine: dataset: the splits ask for"),
        ({"name": "cifar10", "image_size": 64}, None, "image_size belongs to parquet and folder"),
        ({"name": "cifar10", "val_size": 5}, None, "val_size 5 leaves out some of the 10 classes"),
    ],
)
def test_wrong_data_is_one_clear_line(tmp_path: Path, dataset: dict[str, Any], data: str | None, line: str) -> None:
    here = json.loads(json.dumps(dataset).replace("{tmp}", str(tmp_path)))
    with pytest.raises(UserError) as caught:
        load_grid(grid_file(tmp_path, **here), data=None if data is None else f"{tmp_path}/{data}")
    assert line.replace("{tmp}", str(tmp_path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes_are_checked_against_the_facts(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets", {"train": 20})
    with pytest.raises(UserError, match="pets has no official test set: give test_size"):
        load_grid(grid_file(tmp_path, name="pets", folder=str(tmp_path / "pets")))
    with pytest.raises(UserError, match=r"the splits ask for .* pets has 40"):
        load_grid(grid_file(tmp_path, name="pets", folder=str(tmp_path / "pets"), test_size=40))


def test_a_corrupt_image_fails_the_data_set_with_its_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets", {"train": 20, "test": 4})
    (tmp_path / "pets" / "test" / "dog" / "2.png").write_bytes(b"half a picture")
    plan = make_plan(load_grid(grid_file(tmp_path, name="pets", folder=str(tmp_path / "pets"))))
    store, runtime = Store(str(tmp_path / "runs")), Runtime(launch="launch-1")
    error = execute(plan.data, store, runtime, lambda: prepare_dataset(plan.data, store, runtime))
    assert error is not None
    assert "test/dog/2.png: not a readable image" in error


@pytest.mark.long
def test_the_jpeg_copy_of_cifar10_when_it_is_at_hand() -> None:
    folder = Path(__file__).parents[4] / "shared" / "data" / "cifar10"
    if not folder.is_dir():
        pytest.skip(f"SKIPPED LOUDLY: {folder} is not here; the hub's real parquet files are not read in this run")
    spec = load_grid("cifar10_light", data=str(folder)).dataset
    assert (spec.info.pool_images, spec.info.test_images, spec.info.classes) == (50_000, 10_000, 10)
    test = source_of(spec.model_copy(update={"facts": None})).read()["test"]
    assert np.bincount(test.labels_N).tolist() == [1000] * 10
    assert test.images_NHWC.shape == (10_000, 32, 32, 3)
    assert 110 < test.images_NHWC.mean() < 130


@pytest.mark.parametrize("pattern", ["/data/a**b", "/", "~nobody-of-that-name/x", ""])
def test_a_pattern_that_names_no_file_is_one_line(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UserError, match=r"data set pets: no file (can be|is) called") as caught:
        load_grid(grid_file(tmp_path, name="pets", parquet={"train": pattern}, test_size=2))
    assert "\n" not in str(caught.value)


def test_pipes_among_the_images_are_no_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets", {"train": 4})
    os.mkfifo(tmp_path / "pets" / "train" / "cat" / "pipe.png")
    os.mkfifo(tmp_path / "pipe.parquet")
    grid = grid_file(tmp_path, name="pets", folder=str(tmp_path / "pets"), test_size=2)
    assert load_grid(grid).dataset.info.pool_images == 8
    with pytest.raises(UserError, match="no file is called"):
        load_grid(grid_file(tmp_path, name="pets", parquet={"train": f"{tmp_path}/*.parquet"}, test_size=2))


def test_labels_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    write_parquet(file, [png(i) for i in noise(8)], ["dog", "cat", "catdog", "dog"] * 2)
    grid = grid_file(tmp_path, name="pets", parquet={"train": str(file)}, test_size=4)
    assert load_grid(grid).dataset.info.classes == 3
    table = pq.read_table(file)
    damaged = pa.array([b"dog", b"cat", b"\xff\xfe", b"dog"] * 2).view(pa.string())
    pq.write_table(table.set_column(table.schema.get_field_index("label"), "label", damaged), file)
    with pytest.raises(UserError, match=r"train.parquet: not a readable parquet file: .*utf-8"):
        load_grid(grid)


@pytest.mark.parametrize(("label", "words"), [(10**12, "label 1000000000000 is no number of a class"), (3, None)])
def test_a_label_that_counts_no_classes_is_refused(tmp_path: Path, label: int, words: str | None) -> None:
    file = tmp_path / "train.parquet"
    write_parquet(file, [png(i) for i in noise(8)], [0, 1, 2, label] * 2)
    grid = grid_file(tmp_path, name="pets", parquet={"train": str(file)}, test_size=4)
    if words is None:
        assert load_grid(grid).dataset.info.classes == 4
        return
    with pytest.raises(UserError, match=words):
        load_grid(grid)


@pytest.mark.parametrize("name", ["c\x1b[2Jat", "c\u202eat", "c\nat"])
def test_hidden_characters_in_the_names_of_classes_are_refused(tmp_path: Path, name: str) -> None:
    code = f"U\\+{ord(name[1]):04X}"
    write_folder(tmp_path / "pets", {"train": 4}, classes=("dog", name))
    with pytest.raises(UserError, match=rf"data set pets: the class .* has the character {code} in its name: rename"):
        load_grid(grid_file(tmp_path, name="pets", folder=str(tmp_path / "pets"), test_size=2))
    write_parquet(tmp_path / "train.parquet", [png(i) for i in noise(4)], ["dog", name] * 2)
    with pytest.raises(UserError, match=rf"the class .* has the character {code}"):
        load_grid(grid_file(tmp_path, name="pets", parquet={"train": str(tmp_path / "train.parquet")}, test_size=2))
