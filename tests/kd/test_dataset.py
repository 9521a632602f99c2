from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kd.data import dataset
from kd.data.catalog import CATALOG
from kd.data.dataset import DatasetError, DatasetMeta, meta_to_json, open_dataset, prepare
from kd.data.digits import load_digits

SIZES = {"train": 300, "val": 100, "test": 150}


@pytest.fixture(scope="module")
def prepared() -> tuple[DatasetMeta, dict[str, np.ndarray]]:
    return prepare("digits", train_size=300, val_size=100, test_size=150, split_seed=0)


@pytest.fixture
def folder(tmp_path: Path, prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> Path:
    meta, arrays = prepared
    for stem, array in arrays.items():
        np.save(tmp_path / f"{stem}.npy", array)
    (tmp_path / "dataset.json").write_text(meta_to_json(meta))
    return tmp_path


def test_digits_are_what_the_catalog_says() -> None:
    images_NCHW, labels_N = load_digits()
    info = CATALOG["digits"]
    assert images_NCHW.shape == (info.pool_images, info.channels, info.height, info.width)
    assert images_NCHW.dtype == np.uint8
    assert labels_N.dtype == np.int64
    assert np.unique(labels_N).tolist() == list(range(info.classes))
    # 17 grey levels, spread over the whole range.
    assert np.unique(images_NCHW).tolist() == [round(level * 255 / 16) for level in range(17)]


def test_the_catalog_is_keyed_by_name_and_can_be_loaded() -> None:
    assert all(info.name == name for name, info in CATALOG.items())
    assert set(CATALOG) == set(dataset.LOADERS)


def test_prepared_sizes_types_and_shapes(prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    meta, arrays = prepared
    assert set(arrays) == {f"{split}_{kind}" for split in SIZES for kind in ("images", "labels")}
    for split, size in SIZES.items():
        images_NCHW, labels_N = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        assert images_NCHW.shape == (size, 1, 8, 8)
        assert images_NCHW.dtype == np.uint8
        assert images_NCHW.flags.c_contiguous
        assert labels_N.shape == (size,)
        assert labels_N.dtype == np.int64
    assert (meta.name, meta.classes, meta.channels) == ("digits", 10, 1)
    assert meta.sha256 == CATALOG["digits"].sha256


def test_images_keep_their_labels(prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    _, arrays = prepared
    images_NCHW, labels_N = load_digits()
    label_of = {image.tobytes(): int(label) for image, label in zip(images_NCHW, labels_N, strict=True)}
    for split in SIZES:
        found = [label_of[image.tobytes()] for image in arrays[f"{split}_images"]]
        assert found == arrays[f"{split}_labels"].tolist()


def test_mean_and_std_are_those_of_the_training_split(prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    meta, arrays = prepared
    train = arrays["train_images"].astype(np.float64).ravel() / 255
    # Both are rounded to six places.
    assert meta.mean == pytest.approx([train.mean()], abs=5.1e-7)
    assert meta.std == pytest.approx([np.sqrt(((train - train.mean()) ** 2).mean())], abs=5.1e-7)
    everything = load_digits()[0].astype(np.float64) / 255
    assert abs(meta.mean[0] - everything.mean()) > 1e-4


def test_train_size_none_takes_what_the_others_leave() -> None:
    _, arrays = prepare("digits", train_size=None, val_size=100, test_size=150, split_seed=0)
    assert len(arrays["train_labels"]) == 1797 - 250


@pytest.mark.parametrize("fact", ["sha256", "mean"])
def test_a_missing_fact_is_named(folder: Path, fact: str) -> None:
    facts = json.loads((folder / "dataset.json").read_text())
    del facts[fact]
    (folder / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(DatasetError, match=f"{fact}.*delete the folder to have it made again"):
        open_dataset(folder)


def test_the_test_split_does_not_depend_on_the_other_sizes(prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    _, arrays = prepare("digits", train_size=50, val_size=200, test_size=150, split_seed=0)
    assert (arrays["test_images"] == prepared[1]["test_images"]).all()


def test_val_and_test_do_not_depend_on_the_train_size(prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    _, arrays = prepare("digits", train_size=None, val_size=100, test_size=150, split_seed=0)
    for stem in ("val_images", "test_images"):
        assert (arrays[stem] == prepared[1][stem]).all()


def test_the_split_seed_decides_who_goes_where(prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    _, again = prepare("digits", train_size=300, val_size=100, test_size=150, split_seed=0)
    _, other = prepare("digits", train_size=300, val_size=100, test_size=150, split_seed=1)
    for stem, array in prepared[1].items():
        assert (array == again[stem]).all()
        assert (array != other[stem]).any()


@pytest.mark.parametrize("part", ["pixel", "label"])
def test_other_data_under_a_known_name_are_refused(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images_NCHW, labels_N = load_digits()
    if part == "pixel":
        images_NCHW[1000, 0, 3, 3] += 1
    else:
        labels_N[1000] = (labels_N[1000] + 1) % 10
    monkeypatch.setitem(dataset.LOADERS, "digits", lambda: (images_NCHW, labels_N))
    with pytest.raises(DatasetError, match=r"data set digits: the images read hash to .* known is 0b7e9c3202d7bcd2"):
        prepare("digits", train_size=None, val_size=100, test_size=150, split_seed=0)


def test_splits_that_cannot_be_drawn_name_the_data_set() -> None:
    with pytest.raises(DatasetError, match="data set digits: splits ask for 1900 images"):
        prepare("digits", train_size=1700, val_size=100, test_size=100, split_seed=0)
    with pytest.raises(DatasetError, match="data set digits: a val split of 9 images leaves out class"):
        prepare("digits", train_size=None, val_size=9, test_size=100, split_seed=0)
    with pytest.raises(DatasetError, match="data set digits: val and test take all of its 1797 images"):
        prepare("digits", train_size=None, val_size=1000, test_size=1000, split_seed=0)
    with pytest.raises(DatasetError, match="data set digits: a split cannot have -1 images"):
        prepare("digits", train_size=100, val_size=-1, test_size=100, split_seed=0)


def test_a_prepared_folder_reads_back(folder: Path, prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    meta, arrays = prepared
    data = open_dataset(folder)
    assert data.meta == meta
    for name, size in SIZES.items():
        split = data.split(name)
        assert len(split) == size
        assert (split.images_NCHW.numpy() == arrays[f"{name}_images"]).all()
        assert (split.labels_N.numpy() == arrays[f"{name}_labels"]).all()
    assert data.split("val") is data.val


def test_a_stray_write_stays_private(folder: Path) -> None:
    before = (folder / "train_images.npy").read_bytes()
    open_dataset(folder).train.images_NCHW.fill_(7)
    assert (folder / "train_images.npy").read_bytes() == before


@pytest.mark.parametrize("name", ["dataset.json", "train_images.npy", "val_labels.npy", "test_images.npy"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DatasetError, match=rf"(?s){folder}.*{name}.*delete the folder to have it made again"):
        open_dataset(folder)


@pytest.mark.parametrize("name", ["train_images.npy", "val_labels.npy"])
@pytest.mark.parametrize("kept", [0, 10, 60, -1])
def test_a_truncated_array_is_refused(folder: Path, name: str, kept: int) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:kept])
    with pytest.raises(DatasetError, match="delete the folder to have it made again"):
        open_dataset(folder)


@pytest.mark.parametrize("name", ["dataset.json", "train_images.npy", "val_labels.npy"])
def test_a_file_of_something_else_is_refused(folder: Path, name: str) -> None:
    for start in (b"\x00", b"PK\x03\x04"):  # the second is how a zip archive starts
        (folder / name).write_bytes(start + b" not what was written \xff")
        with pytest.raises(DatasetError, match="delete the folder to have it made again"):
            open_dataset(folder)


@pytest.mark.parametrize("name", ["train_images.npy"])
def test_a_file_of_another_header_is_refused(folder: Path, name: str) -> None:
    whole = bytearray((folder / name).read_bytes())
    whole[8] = 1
    (folder / name).write_bytes(bytes(whole))
    with pytest.raises(DatasetError, match="delete the folder to have it made again"):
        open_dataset(folder)


def test_pickled_arrays_are_refused(folder: Path) -> None:
    np.save(folder / "val_labels.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(DatasetError, match="delete the folder to have it made again"):
        open_dataset(folder)


@pytest.mark.parametrize("change", [{"mean": None}, {"author": "?"}])
def test_facts_of_another_kind_are_refused(folder: Path, change: dict[str, object]) -> None:
    facts = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(facts | change))
    with pytest.raises(DatasetError, match="delete the folder to have it made again"):
        open_dataset(folder)
