"""CIFAR's own files, parquet files and folders of images: all become the same arrays."""

from __future__ import annotations

import pickle
import re
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd.data.catalog import CATALOG
from kd.data.reading.cifar import Cifar
from kd.data.reading.decode import decode
from kd.data.reading.folder import ImageFolder
from kd.data.reading.parquet import Parquet
from kd.data.sources import DatasetError
from tests.images import archive_cifar, noise, png, write_cifar, write_folder, write_parquet


def in_folder(name: str, folder: Path | None) -> Cifar:
    def downloads() -> Path:
        raise AssertionError("nothing is to be downloaded")

    return Cifar(name, folder, downloads=downloads)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("archived", [False, True])
def test_cifar_is_read_from_its_folder_and_from_its_archive(tmp_path: Path, name: str, archived: bool) -> None:
    written = write_cifar(tmp_path, name, train=200, test=100)
    if archived:
        archive_cifar(tmp_path, name)
    assert Cifar.is_in(name, tmp_path)
    source = in_folder(name, tmp_path)
    info = source.info
    assert (info.pool_images, info.val_images, info.test_images) == (200, None, 100)
    assert (info.classes, info.channels, info.height, info.width) == (CATALOG[name].classes, 3, 32, 32)
    read = source.read()
    assert read.keys() == written.keys()
    for split, (images_NHWC, labels_N) in written.items():
        assert (read[split].images_NHWC == images_NHWC).all()
        assert (read[split].labels_N == labels_N).all()


def test_the_publishers_files_have_the_publishers_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    write_cifar(tmp_path, "cifar100", train=200, test=100)
    assert in_folder("cifar100", tmp_path).info.source != CATALOG["cifar100"].source
    sums = [
        (name, hashlib.md5((tmp_path / "cifar-100-python" / name).read_bytes()).hexdigest())
        for name in ("train", "test")
    ]
    monkeypatch.setattr(Cifar, "_checksums", lambda self: sums)
    assert in_folder("cifar100", tmp_path).info == CATALOG["cifar100"]
    assert in_folder("cifar100", None).info == CATALOG["cifar100"], "known without any file"


def test_other_images_have_another_source(tmp_path: Path) -> None:
    write_cifar(tmp_path / "a", "cifar10", train=50, test=20)
    write_cifar(tmp_path / "b", "cifar10", train=50, test=30)
    archived = tmp_path / "c"
    write_cifar(archived, "cifar10", train=50, test=20)
    archive_cifar(archived, "cifar10")
    a, b, c = (in_folder("cifar10", tmp_path / name).info.source for name in "abc")
    assert a != b
    assert a == c, "how they are packed does not matter"


def test_a_damaged_batch_is_named_and_no_code_in_it_is_run(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10", train=50, test=20)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:100])
    with pytest.raises(DatasetError, match=r"data set cifar10: data_batch_3 is damaged \("):
        in_folder("cifar10", tmp_path).read()
    batch.write_bytes(pickle.dumps(print))
    with pytest.raises(DatasetError, match=r"data_batch_3 is damaged \(UnpicklingError: it asks for builtins.print"):
        in_folder("cifar10", tmp_path).read()
    batch.unlink()
    with pytest.raises(
        DatasetError, match=r"data set cifar10: .* has no readable cifar-10-batches-py/ or cifar-10-pyt"
    ):
        in_folder("cifar10", tmp_path).read()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": np.zeros((10, 3072), np.float32)}, "its pixels are float32, not uint8"),
        ({"data": np.full((10, 3072), 300)}, "its pixels are int64, not uint8"),
        ({"labels": [0.0, float("nan")] * 5}, "its labels are float64 of shape (10,), not a whole number each"),
        ({"labels": [[0], [1]] * 5}, "its labels are int64 of shape (10, 1), not a whole number each"),
        ({"labels": [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]}, "label 10 of image 9 is outside of 0 to 9"),
    ],
)
def test_a_batch_of_what_are_no_pixels_or_labels_is_named(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    write_cifar(tmp_path, "cifar10", train=50, test=20)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    whole = pickle.loads(batch.read_bytes())
    batch.write_bytes(pickle.dumps(whole | change, protocol=2))
    with pytest.raises(DatasetError, match=rf"data_batch_3 is damaged \(ValueError: {re.escape(reason)}\)"):
        in_folder("cifar10", tmp_path).read()


def test_a_cifar_without_one_of_its_classes_is_refused_and_told_of_in_test(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10", train=50, test=9)
    notes = in_folder("cifar10", tmp_path).info.notes
    assert notes == ("warning: 1 of its 10 classes has no picture in the test split: 9 (truck)",)
    write_cifar(tmp_path / "few", "cifar10", train=8, test=20)
    with pytest.raises(DatasetError, match=r"2 of its 10 classes have no training picture: 8 \(ship\), 9 \(truck\)"):
        _ = in_folder("cifar10", tmp_path / "few").info


def test_without_network_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets.utils

    def unreachable(*args: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", unreachable)
    with pytest.raises(DatasetError, match=r"cannot be downloaded from https://.*no route to host.*with --data"):
        Cifar("cifar100", None, downloads=lambda: tmp_path).read()


def test_a_download_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets.utils

    calls = []

    def download(url: str, folder: Path, filename: str, md5: str) -> None:
        calls.append((url, filename, md5))
        write_cifar(folder, "cifar10", train=50, test=20)

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    assert len(Cifar("cifar10", None, downloads=lambda: tmp_path).read()["train"]) == 50
    assert len(Cifar("cifar10", None, downloads=lambda: tmp_path).read()["test"]) == 20
    assert [filename for _, filename, _ in calls] == ["cifar-10-python.tar.gz"]


def two_files(folder: Path, *, size: int = 32) -> dict[str, list[Path]]:
    images = noise(30, height=size, width=size)
    files = {"train": [folder / "train-0.parquet", folder / "train-1.parquet"], "test": [folder / "test-0.parquet"]}
    for place, path in enumerate([*files["train"], *files["test"]]):
        part = range(10 * place, 10 * place + 10)
        write_parquet(path, [png(images[i]) for i in part], [i % 5 for i in part])
    return files


def test_parquet_files_are_read_in_order(tmp_path: Path) -> None:
    source = Parquet("pets", two_files(tmp_path), channels=3, size=None)
    info = source.info
    assert (info.classes, info.height, info.width, info.channels) == (5, 32, 32, 3)
    assert (info.pool_images, info.val_images, info.test_images) == (20, None, 10)
    read = source.read()
    assert (read["train"].images_NHWC == noise(30)[:20]).all()
    assert (read["test"].images_NHWC == noise(30)[20:]).all()
    assert read["train"].labels_N.tolist() == [i % 5 for i in range(20)]
    assert read["train"].labels_N.dtype == np.int64


def test_parquet_labels_may_be_names(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    write_parquet(path, [png(image) for image in noise(4)], ["dog", "cat", "dog", "ant"], image="image")
    read = Parquet("pets", {"train": [path]}, channels=3, size=None).read()
    assert read["train"].labels_N.tolist() == [2, 1, 2, 0]


def test_a_parquet_row_that_is_no_picture_is_named(tmp_path: Path) -> None:
    files = two_files(tmp_path)
    images = noise(3)
    whole = png(images[1])
    for broken in (b"no picture", whole[: len(whole) // 2]):
        write_parquet(files["test"][0], [png(images[0]), broken, png(images[2])], [0, 1, 2])
        with pytest.raises(DatasetError, match=r"test-0.parquet, row 1: not a readable image"):
            Parquet("pets", files, channels=3, size=None).read()


def test_parquet_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    files = two_files(tmp_path)
    with pytest.raises(
        DatasetError, match=r"has no label column species; it has img, label: name it with dataset.parq"
    ):
        Parquet("pets", files, channels=3, size=None, label="species").read()
    write_parquet(files["test"][0], [png(image) for image in noise(2)], [0, 7])
    with pytest.raises(DatasetError, match="label 7 in test is none of the 5 in train"):
        Parquet("pets", files, channels=3, size=None).read()
    files["test"][0].write_bytes(b"PAR1 and no more")
    with pytest.raises(DatasetError, match=r"test-0.parquet: not a readable parquet file"):
        _ = Parquet("pets", files, channels=3, size=None).info


def test_images_of_other_sizes_are_resized_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pictures = [png(noise(1, height=h, width=w)[0]) for h, w in ((20, 30), (40, 40))]
    write_parquet(path, pictures, [0, 1])
    with pytest.raises(DatasetError, match=r"row 1: is 40 x 40 pixels, others are 30 x 20: give dataset.image_size"):
        Parquet("pets", {"train": [path]}, channels=3, size=None).read()
    source = Parquet("pets", {"train": [path]}, channels=1, size=16)
    assert source.read()["train"].images_NHWC.shape == (2, 16, 16, 1)
    assert source.info.source != Parquet("pets", {"train": [path]}, channels=3, size=16).info.source


def test_a_folder_is_read_by_class_and_name(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": 3, "test": 2})
    source = ImageFolder("pets", tmp_path, channels=3, size=None)
    info = source.info
    assert (info.classes, info.height, info.width) == (2, 12, 12)
    assert (info.pool_images, info.val_images, info.test_images) == (6, None, 4)
    read = source.read()
    assert read["train"].labels_N.tolist() == [0, 0, 0, 1, 1, 1]
    assert (read["train"].images_NHWC[3:] == noise(3, height=12, width=12, seed=1)).all()
    assert (read["test"].images_NHWC[:2] == noise(2, height=12, width=12, seed=10)).all()


def test_a_folder_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no folder train/ with one folder a class"):
        _ = ImageFolder("pets", tmp_path, channels=3, size=None).info
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"has no images in train/<class>/"):
        _ = ImageFolder("pets", tmp_path, channels=3, size=None).info
    picture = tmp_path / "train" / "cat" / "1.jpg"
    picture.write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"train/cat/1.jpg: not a readable image"):
        _ = ImageFolder("pets", tmp_path, channels=3, size=None).info
    picture.write_bytes(png(noise(1)[0]))
    (tmp_path / "test" / "wolf").mkdir(parents=True)
    (tmp_path / "test" / "wolf" / "1.png").write_bytes(png(noise(1)[0]))
    with pytest.raises(DatasetError, match=r"wolf/1.png is of class wolf, which train/ does not have"):
        ImageFolder("pets", tmp_path, channels=3, size=None).read()


def test_any_kind_of_picture_becomes_the_channels_asked_for() -> None:
    image = noise(1, height=5, width=7)[0]
    for mode in ("RGB", "RGBA", "L", "P", "1", "I;16"):
        picture = png(image[..., 0].astype(np.uint16), None) if mode == "I;16" else png(image, mode)
        for channels in (1, 3):
            assert decode(picture, channels=channels, size=None, what=mode).shape == (5, 7, channels)
    assert (decode(png(image), channels=3, size=None, what="") == image).all()
    gray = np.asarray(Image.fromarray(image).convert("L"))
    assert (decode(png(image), channels=1, size=None, what="")[..., 0] == gray).all()
