"""Labels in parquet files: which are none, what their numbers and names mean, and which classes have no picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd.data.reading.parquet import Parquet
from kd.data.sources import DatasetError
from tests.images import noise, png

PICTURES = [png(image) for image in noise(12, height=4, width=4)]


def write(path: Path, labels: list[Any], *, kind: pa.DataType | None = None, names: list[str] | None = None) -> None:
    table = pa.table({"image": pa.array(PICTURES[: len(labels)]), "label": pa.array(labels, kind)})
    if names is not None:
        feature = {"names": names, "_type": "ClassLabel"}
        facts = {"info": {"features": {"image": {"_type": "Image"}, "label": feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(facts)})
    pq.write_table(table, path)


def parquet(folder: Path, train: list[Any], test: list[Any] | None = None, **how: Any) -> Parquet:
    asked = {key: how.pop(key) for key in ("classes", "class_order") if key in how}
    files = {"train": [folder / "train.parquet"]}
    write(folder / "train.parquet", train, **how)
    if test is not None:
        files["test"] = [folder / "test.parquet"]
        write(folder / "test.parquet", test, **how)
    return Parquet("pets", files, channels=3, size=None, **asked)


def refused(source: Parquet) -> str:
    with pytest.raises(DatasetError) as caught:
        _ = source.info
    line = str(caught.value)
    assert line.startswith("data set pets: ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("labels", "kind", "line"),
    [
        ([0, 1, None, 1], None, "train.parquet: row 2 has no label (null or NaN): label such rows, or remove them"),
        (["a", None, "b", None], None, "train.parquet: row 1, row 3 have no label (null or NaN)"),
        ([0.0, float("nan"), 1.0], None, "train.parquet: row 1 has no label (null or NaN)"),
        ([None, None], pa.null(), "train.parquet: row 0, row 1 have no label"),
        (
            [[0], [0, 9]],
            None,
            "train.parquet, row 0: the label is [0], and a picture has one, a number or a name (2 such",
        ),
        ([{"x": 1, "y": 2}], None, "train.parquet, row 0: the label is {'x': 1, 'y': 2}, and a picture has one"),
    ],
)
def test_what_is_no_label_is_refused_with_file_and_row(
    tmp_path: Path, labels: list[Any], kind: pa.DataType | None, line: str
) -> None:
    assert line in refused(parquet(tmp_path, labels, kind=kind))


def test_rows_are_counted_in_their_own_file(tmp_path: Path) -> None:
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    write(files[0], [0, 1])
    write(files[1], [0, None, 1])
    line = refused(Parquet("pets", {"train": files}, channels=3, size=None))
    assert f"{tmp_path}/b.parquet: row 1 has no label" in line
    table = pa.table({"image": pa.array([PICTURES[0], None]), "label": [0, 1]})
    pq.write_table(table, files[1])
    assert "b.parquet, row 1: column image holds no image bytes" in refused(
        Parquet("pets", {"train": files}, channels=3, size=None)
    )


@pytest.mark.parametrize(
    ("train", "test", "line"),
    [
        (
            [1, 2, 3],
            None,
            "1 of its 4 classes has no training picture: 0 (list the labels in dataset.classes, or renumb",
        ),
        ([0, 2, 5], None, "3 of its 6 classes have no training picture: 1, 3, 4 (list the labels in dataset.classes"),
        (
            [0, 11_000_000_000],
            None,
            "the label 11000000000 is no number of a class ({tmp}/train.parquet, row 1): they co",
        ),
        (
            [-1, 0, 1],
            None,
            "the label -1 is no number of a class ({tmp}/train.parquet, row 0): they count from 0 up to",
        ),
        (
            [0, 1],
            [0, -1],
            "label -1 in test is none of the 2 in train ({tmp}/test.parquet, row 1): -1 stands for labels t",
        ),
        ([0, 1], [0, 7], "label 7 in test is none of the 2 in train ({tmp}/test.parquet, row 1)"),
        ([0, 1], ["0", "1"], "label '0', '1' in test is none of the 2 in train"),
        ([0, 1], [], "its test split has no picture"),
    ],
)
def test_numbers_that_number_no_classes_are_refused_with_the_reason(
    tmp_path: Path, train: list[Any], test: list[Any] | None, line: str
) -> None:
    kind = pa.int64() if test == [] else None
    assert line.format(tmp=tmp_path) in refused(parquet(tmp_path, train, test, kind=kind))


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    line = refused(parquet(tmp_path, [1, 2, 4], [5, 1]))
    assert "2 of its 5 classes have no training picture: 0, 3 (" in line
    assert "label 5 in test is none of the 5 in train" in line


def test_ids_may_be_listed_in_the_order_of_their_classes(tmp_path: Path) -> None:
    source = parquet(tmp_path, [13 * 10**9, 11 * 10**9, 13 * 10**9], classes=("11000000000", "13000000000"))
    assert source.info.classes == 2
    assert source.read()["train"].labels_N.tolist() == [1, 0, 1]
    source = parquet(tmp_path, [1, 2, 3], [3], classes=("1", "2", "3"))
    assert source.read()["train"].labels_N.tolist() == [0, 1, 2]
    assert source.info.notes == ("warning: 2 of its 3 classes have no picture in the test split: 0 (1), 1 (2)",)


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ([0, 2, 1], [0, 1, 2], [0, 2, 1]),
        ([True, False], [0, 1], [1, 0]),
        ([2.0, 10.0, 2.0], ["10.0", "2.0"], [1, 0, 1]),
        (["dog", "ant", "dog"], ["ant", "dog"], [1, 0, 1]),
    ],
)
def test_labels_are_read_as_before(tmp_path: Path, labels: list[Any], classes: list[Any], numbers: list[int]) -> None:
    source = parquet(tmp_path, labels)
    assert source.classes == classes
    assert source.read()["train"].labels_N.tolist() == numbers
    assert source.info.source.endswith("[null, null, 3, null]")


def test_the_hubs_names_are_those_of_the_classes(tmp_path: Path) -> None:
    """They number the classes as before, so the images keep their source."""
    plain = parquet(tmp_path, [2, 0, 1], [1, 0, 2])
    numbers, source = plain.read()["train"].labels_N, plain.info.source
    named = parquet(tmp_path, [2, 0, 1], [1, 0, 2], names=["dog", "cat", "ant"])
    assert named.classes == ["dog", "cat", "ant"]
    assert named.info.some_classes == ("dog", "cat", "ant")
    assert (named.read()["train"].labels_N == numbers).all()
    assert named.info.source.split()[1:] == source.split()[1:] == ["[null,", "null,", "3,", "null]"]


def test_names_beyond_the_labels_are_told(tmp_path: Path) -> None:
    source = parquet(tmp_path, [0, 1, 0], names=["dog", "cat", "ant", "bee"])
    assert source.info.classes == 2
    assert source.info.notes == ("class names that belong to no training picture left out: ant, bee",)
    assert "the label 2 has no name among the 2 of its files' schema" in refused(
        parquet(tmp_path, [0, 1, 2], names=["dog", "cat"])
    )
    assert "1 of its 3 classes has no training picture: 1 (cat)" in refused(
        parquet(tmp_path, [0, 2], names=["dog", "cat", "ant"])
    )


def test_files_that_name_the_classes_otherwise_are_refused(tmp_path: Path) -> None:
    files = {split: [tmp_path / f"{split}.parquet"] for split in ("train", "test")}
    write(files["train"][0], [0, 1], names=["dog", "cat"])
    write(files["test"][0], [0, 1], names=["cat", "dog"])
    line = refused(Parquet("pets", files, channels=3, size=None))
    assert "train.parquet and" in line
    assert "test.parquet give the classes other names" in line


@pytest.mark.parametrize("facts", ["{", "[]", '{"info": 3}', '{"info": {"features": {"label": {"_type": "Value"}}}}'])
def test_a_schema_that_says_nothing_of_names_gives_none(tmp_path: Path, facts: str) -> None:
    source = parquet(tmp_path, [0, 1])
    path = source.files["train"][0]
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": facts}), path)
    assert parquet(tmp_path, [0, 1]).classes == [0, 1]
    assert Parquet("pets", {"train": [path]}, channels=3, size=None).classes == [0, 1]


def test_names_may_be_put_in_another_order(tmp_path: Path) -> None:
    hub = parquet(tmp_path, [0, 1, 0], names=["dog", "cat"], classes=("cat", "dog"))
    assert hub.read()["train"].labels_N.tolist() == [1, 0, 1]
    plain = parquet(tmp_path, [0, 1, 0], names=["dog", "cat"], classes=("dog", "cat"))
    assert plain.read()["train"].labels_N.tolist() == [0, 1, 0]
    assert '"classes"' in hub.info.source
    assert '"classes"' not in plain.info.source
    natural = parquet(tmp_path, ["2", "10", "1"], class_order="natural")
    assert natural.classes == ["1", "2", "10"]
    assert natural.read()["train"].labels_N.tolist() == [1, 2, 0]
    assert "its labels are numbers, which have an order: leave dataset.class_order out" in refused(
        parquet(tmp_path, [0, 1], class_order="natural")
    )


def test_labels_that_a_list_lacks_are_named(tmp_path: Path) -> None:
    line = refused(parquet(tmp_path, ["dog", "cat", "cow"], ["dog", "cat"], classes=("dog", "cat", "cows")))
    assert "label 'cow' in train is none of those in dataset.classes" in line
    assert "1 of its 3 classes has no training picture: 2 (cows) (leave them out of dataset.classes" in line


def test_many_classes_are_read_in_time(tmp_path: Path) -> None:
    """A million numbers are counted without a list of them all in the message."""
    line = refused(parquet(tmp_path, [0, 999_999]))
    assert "999,998 of its 1,000,000 classes have no training picture: 1, 2, 3, 4, 5 and 999,993 more" in line
