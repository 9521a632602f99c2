"""What of a folder is a picture, what is a class, and what is left out and told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kd.data.reading.walk
from kd.data.reading.decode import FORMATS
from kd.data.reading.folder import ImageFolder
from kd.data.sources import DatasetError, sha256_of
from tests.images import noise, png, write_folder

PICTURE = png(noise(1, height=12, width=12)[0])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_folder(tmp_path / "pets", {"train": 2, "test": 1})
    return tmp_path / "pets"


def folder_of(place: Path, **how: object) -> ImageFolder:
    return ImageFolder("pets", place, channels=3, size=None, **how)  # type: ignore[arg-type]


def test_a_linked_class_is_that_class(place: Path, tmp_path: Path) -> None:
    """And its pictures are the same data, wherever they lie."""
    plain = folder_of(place)
    before, images_NHWC = plain.info, plain.read()["train"].images_NHWC
    shutil.move(place / "train" / "dog", tmp_path / "elsewhere")
    (place / "train" / "dog").symlink_to(tmp_path / "elsewhere")
    linked = folder_of(place)
    passed_over = {path.relative_to(place).as_posix(): path for path in place.rglob("*.png") if path.parts[-2] == "cat"}
    passed_over |= {f"test/dog/{path.name}": path for path in (place / "test" / "dog").iterdir()}
    assert linked.info.source != f"{sha256_of(passed_over)} [3, None]", "the source that the first reader gave it"
    assert (linked.info, linked.info.source) == (before, before.source)
    assert (linked.read()["train"].images_NHWC == images_NHWC).all()


def test_linked_folders_within_a_class_are_read(place: Path, tmp_path: Path) -> None:
    (tmp_path / "more" / "deep").mkdir(parents=True)
    for path in (tmp_path / "more" / "a.png", tmp_path / "more" / "deep" / "b.png"):
        path.write_bytes(PICTURE)
    (place / "train" / "cat" / "more").symlink_to(tmp_path / "more")
    source = folder_of(place)
    assert source.info.pool_images == 6
    assert source.read()["train"].labels_N.tolist() == [0, 0, 0, 0, 1, 1]
    assert [Path(what).name for what, _ in source._pictures("train")][:4] == ["0.png", "1.png", "a.png", "b.png"]


def test_links_in_circles_come_to_an_end(place: Path) -> None:
    """And what has a place of its own is called by that, so that the source stays."""
    cat = place / "train" / "cat"
    (cat / "z").mkdir()
    (cat / "z" / "2.png").write_bytes(PICTURE)
    before = folder_of(place).info
    (cat / "a").symlink_to(cat / "z")
    (cat / "z" / "again").symlink_to(cat)
    (cat / "around").symlink_to(place / "train")
    (cat / "itself").symlink_to(cat / "itself")
    after = folder_of(place).info
    assert (after.source, after.pool_images) == (before.source, 5)
    assert after.notes == (
        "1 file left out (link that leads nowhere)",
        "1 link to a folder around it left out",
    )


def test_a_strangers_link_to_a_folder_is_not_followed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(place / "train" / "dog", tmp_path / "elsewhere")
    (place / "train" / "dog").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(kd.data.reading.walk.os, "geteuid", lambda: 12_345)
    if os.lstat(place / "train" / "dog").st_uid == 0:
        if os.getuid() != 0:
            pytest.skip("only root may give a link away")
        os.chown(place / "train" / "dog", 54_321, -1, follow_symlinks=False)
    with pytest.raises(
        DatasetError, match=r"train/dog is a link to a folder that user \d+ made, which is not followed"
    ):
        _ = folder_of(place).info


@pytest.mark.parametrize("suffix", [".pgm", ".pnm", ".jfif", ".jpe", ".avif"])
def test_newer_suffixes_are_read(place: Path, suffix: str) -> None:
    if suffix not in FORMATS:
        pytest.skip("this Pillow was built without AVIF")
    before = folder_of(place).info
    added = place / "train" / "dog" / f"9{suffix.upper()}"
    picture = Image.fromarray(noise(1, height=12, width=12)[0])
    picture.convert("L" if suffix == ".pgm" else "RGB").save(added, format=FORMATS[suffix])
    after = folder_of(place).info
    assert after.pool_images == before.pool_images + 1
    assert after.source != before.source
    shape = folder_of(place).read()["train"].images_NHWC.shape
    assert shape == (5, 12, 12, 3)


def test_what_is_left_out_is_counted(place: Path) -> None:
    for number in range(18):
        (place / "train" / "cat" / f"{number}.heic").write_bytes(b"")
    assert folder_of(place).info.notes == ("18 files left out (.heic)",)
    (place / "test" / "dog" / "notes").write_text("")
    (place / "train" / "labels.csv").write_text("")
    (place / "validation").mkdir()
    os.mkfifo(place / "test" / "pipe.png")
    assert folder_of(place).info.notes == (
        "21 files left out (18 .heic, 1 .csv, 1 no regular file, 1 without a suffix)",
        "left out beside train/, val/ and test/: validation/",
    )


def test_what_is_hidden_is_no_class_and_no_picture(place: Path) -> None:
    before = folder_of(place).info
    for name in (".ipynb_checkpoints", "cat/.ipynb_checkpoints"):
        (place / "train" / name).mkdir()
        (place / "train" / name / "0-checkpoint.png").write_bytes(PICTURE)
    (place / "train" / "cat" / "._0.png").write_bytes(b"\0\5\26\7Mac OS X")
    (place / "train" / ".DS_Store").write_bytes(b"")
    after = folder_of(place)
    assert after.info == before
    assert after.classes == ["cat", "dog"]
    assert after.info.notes == ("2 files left out (hidden)", "2 hidden folders left out")


def test_a_folder_of_nothing_but_others_says_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "cat" / "1.heic").write_bytes(b"")
    line = r"has no images in train/<class>/ \(of .png, .*\); 1 file left out \(.heic\)$"
    with pytest.raises(DatasetError, match=line):
        _ = folder_of(tmp_path).info


def test_all_that_is_wrong_is_told_at_once(place: Path) -> None:
    for name in ("ant", "emu"):
        (place / "train" / name).mkdir()
    (place / "train" / "loose.png").write_bytes(PICTURE)
    (place / "test" / "wolf").mkdir()
    (place / "test" / "wolf" / "1.png").write_bytes(PICTURE)
    (place / "val").mkdir()
    with pytest.raises(DatasetError) as caught:
        _ = folder_of(place).info
    line = str(caught.value)
    assert "\n" not in line
    for part in (
        f"1 picture in train/ but in no class's folder: {place}/train/loose.png: move it to train/<class>/; ",
        f"{place}/test/wolf/1.png is of class wolf, which train/ does not have; ",
        "its val split has no picture; ",
        "2 of its 4 classes have no training picture: 0 (ant), 3 (emu) (add pictures, or remove the folders)",
    ):
        assert part in line


def test_a_class_that_only_another_split_lacks_is_a_warning(place: Path) -> None:
    shutil.rmtree(place / "test" / "dog")
    source = folder_of(place)
    assert source.info.notes == ("warning: 1 of its 2 classes has no picture in the test split: 1 (dog)",)
    assert source.read()["test"].labels_N.tolist() == [0]


def test_classes_are_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    names = ("0", "1", "10", "2")
    write_folder(tmp_path, {"train": 1, "test": 1}, classes=names)
    orders: dict[str, dict[str, object]] = {
        "text": {},
        "natural": {"class_order": "natural"},
        "given": {"classes": ("2", "0", "10", "1")},
    }
    sources = {name: folder_of(tmp_path, **how) for name, how in orders.items()}
    assert {name: source.classes for name, source in sources.items()} == {
        "text": ["0", "1", "10", "2"],
        "natural": ["0", "1", "2", "10"],
        "given": ["2", "0", "10", "1"],
    }
    assert len({source.info.source for source in sources.values()}) == 3
    plain = sources["text"].read()["train"]
    for source in sources.values():
        read = source.read()["train"]
        assert (read.images_NHWC == plain.images_NHWC).all()
        assert [source.classes[label] for label in read.labels_N] == [names[label] for label in plain.labels_N]


def test_the_natural_order_is_that_of_timms_folders(tmp_path: Path) -> None:
    from timm.data.readers.reader_image_folder import ReaderImageFolder

    names = ("n10", "n9", "N8", "a", "B", "2b", "10a", "x1y10", "x1y9")
    write_folder(tmp_path, {"train": 1}, classes=names)
    theirs = ReaderImageFolder(str(tmp_path / "train")).class_to_idx
    assert folder_of(tmp_path, class_order="natural").classes == sorted(theirs, key=lambda name: theirs[name])


def test_a_list_of_classes_that_does_not_fit_is_told_by_name(place: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        _ = folder_of(place, classes=("cat", "doge")).info
    assert f"{place}/train/dog/0.png (and 1 more) is of class dog, which dataset.classes does not have" in str(
        caught.value
    )
    assert "1 of its 2 classes has no training picture: 1 (doge) (leave them out of dataset.classes" in str(
        caught.value
    )


def test_labels_are_numbers_of_numpys(place: Path) -> None:
    assert folder_of(place).train_labels.dtype == np.int64
