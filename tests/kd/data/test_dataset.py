from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import kd.data.reading.digits
from kd.data import dataset
from kd.data.catalog import CATALOG, DatasetInfo
from kd.data.dataset import DatasetMeta, check_fingerprint, meta_to_json, open_dataset, prepare
from kd.data.reading.digits import Digits
from kd.data.sources import DatasetError, Images
from kd.data.splits import stratified_draw

SIZES = {"train": 300, "val": 100, "test": 150}


def digits(
    *, train_size: int | None, val_size: int, test_size: int | None, split_seed: int
) -> tuple[DatasetMeta, dict[str, np.ndarray]]:
    sizes = {"train_size": train_size, "test_size": test_size}
    return prepare(Digits(), CATALOG["digits"], **sizes, val_size=val_size, split_seed=split_seed)


class Given:
    """Images made by a test."""

    def __init__(self, info: DatasetInfo, **splits: Images) -> None:
        self.info, self.splits = info, splits

    def read(self) -> dict[str, Images]:
        return self.splits


def load_digits() -> Images:
    return Digits().read()["train"]


@pytest.fixture(scope="module")
def prepared() -> tuple[DatasetMeta, dict[str, np.ndarray]]:
    return digits(train_size=300, val_size=100, test_size=150, split_seed=0)


def publish(folder: Path, meta: DatasetMeta, arrays: dict[str, np.ndarray]) -> None:
    for stem, array in arrays.items():
        np.save(folder / f"{stem}.npy", array)
    (folder / "dataset.json").write_text(meta_to_json(meta))


@pytest.fixture
def folder(tmp_path: Path, prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> Path:
    publish(tmp_path, *prepared)
    return tmp_path


def test_digits_are_what_the_catalog_says() -> None:
    images, info = load_digits(), CATALOG["digits"]
    assert images.images_NHWC.shape == (info.pool_images, info.height, info.width, info.channels)
    assert images.images_NHWC.dtype == np.uint8
    assert images.labels_N.dtype == np.int64
    assert np.unique(images.labels_N).tolist() == list(range(info.classes))
    # 17 grey levels, spread over the whole range.
    assert np.unique(images.images_NHWC).tolist() == [round(level * 255 / 16) for level in range(17)]


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn import datasets

    images, theirs = load_digits(), datasets.load_digits()
    assert (images.images_NHWC[..., 0] == np.rint(theirs.images * 255 / 16)).all()
    assert (images.labels_N == theirs.target).all()


def test_the_catalog_is_keyed_by_name() -> None:
    assert all(info.name == name for name, info in CATALOG.items())


def test_prepared_sizes_types_and_shapes(prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    meta, arrays = prepared
    assert set(arrays) == {f"{split}_{kind}" for split in SIZES for kind in ("images", "labels")}
    for split, size in SIZES.items():
        images_NHWC, labels_N = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        assert images_NHWC.shape == (size, 8, 8, 1)
        assert images_NHWC.dtype == np.uint8
        assert images_NHWC.flags.c_contiguous
        assert labels_N.shape == (size,)
        assert labels_N.dtype == np.int64
    assert (meta.name, meta.classes, meta.channels) == ("digits", 10, 1)
    assert len(meta.fingerprint) == 64


def noise(count: int, *, classes: int = 4, seed: int = 0) -> Images:
    rng = np.random.default_rng(seed)
    images_NHWC = rng.integers(0, 256, (count, 6, 9, 3), dtype=np.uint8)
    return Images(images_NHWC, np.tile(np.arange(classes), count // classes))


def facts(pool: int, *, val: int | None = None, test: int | None = None) -> DatasetInfo:
    return DatasetInfo(
        "noise", 4, 3, height=6, width=9, pool_images=pool, val_images=val, test_images=test, source="made up"
    )


def test_splits_are_drawn_from_the_training_images() -> None:
    pool = noise(40)
    meta, arrays = prepare(
        Given(facts(40), train=pool), facts(40), train_size=24, val_size=8, test_size=8, split_seed=0
    )
    drawn = stratified_draw(pool.labels_N, sizes={"test": 8, "val": 8, "train": 24}, seed=0)
    for split, index_S in drawn.items():
        assert (arrays[f"{split}_images"] == pool.images_NHWC[index_S]).all()
        assert (arrays[f"{split}_labels"] == pool.labels_N[index_S]).all()
    means = pool.images_NHWC[drawn["train"]].astype(np.float64).mean(axis=(0, 1, 2)) / 255
    assert meta.mean == pytest.approx(means, abs=5.1e-7)


def test_official_splits_are_taken_whole_and_in_order() -> None:
    pool, test, val = noise(40), noise(12, seed=1), noise(8, seed=2)
    info = facts(40, val=8, test=12)
    source = Given(info, train=pool, val=val, test=test)
    _, arrays = prepare(source, info, train_size=None, val_size=0, test_size=None, split_seed=0)
    for name, images in (("train", pool), ("val", val), ("test", test)):
        assert (arrays[f"{name}_images"] == images.images_NHWC).all()
        assert (arrays[f"{name}_labels"] == images.labels_N).all()


def test_a_validation_split_may_be_drawn_beside_an_official_test_set() -> None:
    pool, test, info = noise(40), noise(12, seed=1), facts(40, test=12)
    source = Given(info, train=pool, test=test)
    _, arrays = prepare(source, info, train_size=None, val_size=8, test_size=None, split_seed=0)
    sizes = {name: len(arrays[f"{name}_labels"]) for name in ("train", "val", "test")}
    assert sizes == {"train": 32, "val": 8, "test": 12}
    assert (arrays["test_images"] == test.images_NHWC).all()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([0, 1, 2, 4] * 3, "data set noise: test has label 4, outside of 0 to 3"),
        ([0, 1, 2, -1] * 3, "data set noise: test has label -1, outside of 0 to 3"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels: list[int], reason: str) -> None:
    test, info = Images(noise(12).images_NHWC, np.array(labels)), facts(40, test=12)
    with pytest.raises(DatasetError, match=reason):
        prepare(
            Given(info, train=noise(40), test=test), info, train_size=None, val_size=0, test_size=None, split_seed=0
        )


def test_a_class_may_be_missing_in_test_alone() -> None:
    few, info = Images(noise(12).images_NHWC, np.array([0, 1, 2, 2] * 3)), facts(40, test=12)
    _, arrays = prepare(
        Given(info, train=noise(40), test=few), info, train_size=None, val_size=0, test_size=None, split_seed=0
    )
    assert arrays["test_labels"].tolist() == [0, 1, 2, 2] * 3
    few = Images(noise(40).images_NHWC, np.array([0, 1, 1, 0] * 10))
    with pytest.raises(DatasetError, match="data set noise: train has no image of class 2, 3"):
        prepare(Given(facts(40), train=few), facts(40), train_size=8, val_size=8, test_size=8, split_seed=0)


def test_training_images_that_all_show_the_same_are_refused() -> None:
    flat = Images(np.full((40, 6, 9, 3), (7, 0, 9), np.uint8), noise(40).labels_N)
    with pytest.raises(DatasetError, match="all pixels of its 24 training images have the value 7 0 9, which nothing"):
        prepare(Given(facts(40), train=flat), facts(40), train_size=24, val_size=8, test_size=8, split_seed=0)
    flat.images_NHWC[:, 0, 0, 0] = 8
    prepare(Given(facts(40), train=flat), facts(40), train_size=24, val_size=8, test_size=8, split_seed=0)


def test_images_that_have_changed_since_the_plan_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"has \{'train': 40\} images, \{'train': 44\} were planned"):
        prepare(Given(facts(40), train=noise(40)), facts(44), train_size=8, val_size=8, test_size=8, split_seed=0)


def test_images_keep_their_labels(prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    _, arrays = prepared
    images = load_digits()
    label_of = {i.tobytes(): int(label) for i, label in zip(images.images_NHWC, images.labels_N, strict=True)}
    for split in SIZES:
        found = [label_of[image.tobytes()] for image in arrays[f"{split}_images"]]
        assert found == arrays[f"{split}_labels"].tolist()


def test_mean_and_std_are_those_of_the_training_split(prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    meta, arrays = prepared
    train = arrays["train_images"].astype(np.float64).ravel() / 255
    # Both are rounded to six places.
    assert meta.mean == pytest.approx([train.mean()], abs=5.1e-7)
    assert meta.std == pytest.approx([np.sqrt(((train - train.mean()) ** 2).mean())], abs=5.1e-7)
    everything = load_digits().images_NHWC.astype(np.float64) / 255
    assert abs(meta.mean[0] - everything.mean()) > 1e-4


def test_statistics_are_each_channels_own_and_exact() -> None:
    rng = np.random.default_rng(0)
    images_NHWC = rng.integers(0, 256, (50, 8, 9, 3), dtype=np.uint8)
    images_NHWC[..., 1] //= 7
    images_NHWC[..., 2] = 200
    mean_C, std_C = dataset._channel_statistics(images_NHWC)
    for channel in range(3):
        levels = [Fraction(level, 255) for level in images_NHWC[..., channel].ravel().tolist()]
        mean = sum(levels) / len(levels)
        variance = sum((level - mean) ** 2 for level in levels) / len(levels)
        assert mean_C[channel] == pytest.approx(float(mean), rel=1e-15)
        # A difference of squares in float64.
        assert std_C[channel] == pytest.approx(math.sqrt(variance), rel=1e-13)
    assert std_C[2] == 0  # of a channel that never varies


def test_train_size_none_takes_what_the_others_leave() -> None:
    _, arrays = digits(train_size=None, val_size=100, test_size=150, split_seed=0)
    assert len(arrays["train_labels"]) == 1797 - 250


@pytest.mark.parametrize("fact", ["fingerprint", "mean"])
def test_a_missing_fact_is_named(folder: Path, fact: str) -> None:
    facts = json.loads((folder / "dataset.json").read_text())
    del facts[fact]
    (folder / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(DatasetError, match=f"{fact}.*delete the folder to have it made again"):
        open_dataset(folder)


def test_the_test_split_does_not_depend_on_the_other_sizes(prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    _, arrays = digits(train_size=50, val_size=200, test_size=150, split_seed=0)
    assert (arrays["test_images"] == prepared[1]["test_images"]).all()


def test_val_and_test_do_not_depend_on_the_train_size(prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    _, arrays = digits(train_size=None, val_size=100, test_size=150, split_seed=0)
    for stem in ("val_images", "test_images"):
        assert (arrays[stem] == prepared[1][stem]).all()


def test_the_split_seed_decides_who_goes_where(prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    _, again = digits(train_size=300, val_size=100, test_size=150, split_seed=0)
    _, other = digits(train_size=300, val_size=100, test_size=150, split_seed=1)
    for stem, array in prepared[1].items():
        assert (array == again[stem]).all()
        assert (array != other[stem]).any()


def test_the_fingerprint_is_that_of_the_splits_as_drawn(prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    sizes: dict[str, int | None] = {"train_size": 300, "val_size": 100, "test_size": 150, "split_seed": 0}
    changes: list[dict[str, int | None]] = [
        {},
        {"split_seed": 1},
        {"train_size": 299},
        {"train_size": None},
        {"val_size": 99},
        {"val_size": 0},
        {"test_size": 149},
    ]
    found = [digits(**{**sizes, **change})[0].fingerprint for change in changes]  # type: ignore[arg-type]
    assert found[0] == prepared[0].fingerprint
    assert len(set(found)) == len(changes)


def test_a_split_may_be_empty(tmp_path: Path) -> None:
    meta, arrays = digits(train_size=300, val_size=0, test_size=150, split_seed=0)
    publish(tmp_path, meta, arrays)
    data = open_dataset(tmp_path)
    assert len(data.val) == 0
    assert data.evaluated == ("test",)


def test_what_can_be_evaluated_on_are_the_splits_with_images(folder: Path) -> None:
    assert open_dataset(folder).evaluated == ("val", "test")


@pytest.mark.parametrize("part", ["pixel", "label"])
def test_other_digits_under_the_known_name_are_refused(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images_NCHW, labels_N = kd.data.reading.digits._load()
    if part == "pixel":
        images_NCHW[1000, 0, 3, 3] += 1
    else:
        labels_N[1000] = (labels_N[1000] + 1) % 10
    monkeypatch.setattr(kd.data.reading.digits, "_load", lambda: (images_NCHW, labels_N))
    with pytest.raises(DatasetError, match=r"data set digits: the images read hash to .* known is 0b7e9c3202d7bcd2"):
        digits(train_size=None, val_size=100, test_size=150, split_seed=0)


def test_splits_that_cannot_be_drawn_name_the_data_set() -> None:
    with pytest.raises(DatasetError, match="data set digits: splits ask for 1900 images"):
        digits(train_size=1700, val_size=100, test_size=100, split_seed=0)
    with pytest.raises(DatasetError, match="data set digits: a val split of 9 images leaves out class"):
        digits(train_size=None, val_size=9, test_size=100, split_seed=0)
    with pytest.raises(DatasetError, match="data set digits: val and test take all of its 1797 images"):
        digits(train_size=None, val_size=1000, test_size=1000, split_seed=0)
    with pytest.raises(DatasetError, match="data set digits: a split cannot have -1 images"):
        digits(train_size=100, val_size=-1, test_size=100, split_seed=0)


def test_a_prepared_folder_reads_back(folder: Path, prepared: tuple[DatasetMeta, dict[str, np.ndarray]]) -> None:
    meta, arrays = prepared
    data = open_dataset(folder)
    assert data.meta == meta
    for name, size in SIZES.items():
        split = data.split(name)
        assert len(split) == size
        assert (split.images_NHWC.numpy() == arrays[f"{name}_images"]).all()
        assert (split.labels_N.numpy() == arrays[f"{name}_labels"]).all()
    assert data.split("val") is data.val


def test_images_are_read_from_the_file_as_they_are_asked_for(folder: Path) -> None:
    images_NHWC = open_dataset(folder).train.images_NHWC
    mapped = Path("/proc/self/maps").read_text()
    (line,) = [line for line in mapped.splitlines() if line.endswith(str(folder / "train_images.npy"))]
    start, end = (int(edge, 16) for edge in line.split()[0].split("-"))
    assert start <= images_NHWC.data_ptr() < end
    assert line.split()[1] == "rw-p"  # private: copied where it is written to


def test_a_stray_write_stays_private(folder: Path) -> None:
    before = (folder / "train_images.npy").read_bytes()
    open_dataset(folder).train.images_NHWC.fill_(7)
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


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("train_images.npy", lambda images: images.astype(np.float64), "float64 of shape .*, not pixels with 1 chan"),
        ("train_images.npy", lambda images: np.repeat(images, 3, axis=3), "not pixels with 1 channels"),
        ("train_images.npy", lambda images: images[:, :, 0], "not pixels with 1 channels"),
        ("train_images.npy", lambda images: images[:-1], "train_labels.npy holds .*, not a label for each of 299 im"),
        ("val_labels.npy", lambda labels: labels[:3], "not a label for each of 100 images"),
        ("val_labels.npy", lambda labels: labels.astype(np.int32), "int32 of shape"),
        ("test_labels.npy", lambda labels: labels + 1, "test_labels.npy has labels outside of 0 to 9"),
        ("test_labels.npy", lambda labels: labels - 1, "test_labels.npy has labels outside of 0 to 9"),
    ],
)
def test_arrays_that_were_not_prepared_so_are_refused(
    folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray], reason: str
) -> None:
    np.save(folder / name, change(np.load(folder / name)))
    with pytest.raises(DatasetError, match=rf"(?s)^prepared data set {folder}: .*{reason}.*; delete the folder to"):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("train_images.npy", lambda images: 255 - images, "images or labels"),
        ("train_images.npy", lambda images: images[:, 1:], "images or labels"),
        ("test_labels.npy", lambda labels: labels[::-1], "images or labels"),
    ],
)
def test_what_changed_on_disk_does_not_have_its_fingerprint(
    folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray], what: str
) -> None:
    check_fingerprint(open_dataset(folder), folder)
    np.save(folder / name, change(np.load(folder / name)))
    with pytest.raises(
        DatasetError, match=f"^prepared data set {folder}: its {what} changed after it was prepared; del"
    ):
        check_fingerprint(open_dataset(folder), folder)


def test_a_changed_mean_is_noticed(folder: Path) -> None:
    facts = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(facts | {"mean": [0.5]}))
    with pytest.raises(DatasetError, match=r"its mean or deviation, in dataset\.json, changed after it was prepared"):
        check_fingerprint(open_dataset(folder), folder)


@pytest.mark.parametrize("name", ["dataset.json", "train_images.npy", "val_labels.npy"])
def test_a_pipe_in_a_files_place_is_not_waited_for(folder: Path, name: str) -> None:
    """In a process of its own: without the check it waits for ever."""
    (folder / name).unlink()
    os.mkfifo(folder / name)
    script = f"import pathlib; from kd.data.dataset import open_dataset; open_dataset(pathlib.Path({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert f"{name} is not a regular file; delete the folder to have it made again" in done.stderr
