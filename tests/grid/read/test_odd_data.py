"""Data sets as people have them: one line with exit status 2, or a line in the dry run that says what was found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import launch
from grid.errors import UserError
from grid.read.datasets import label_names, located
from grid.read.grid_file import load_grid, spec_from_dict
from grid.spec.dataset import DatasetSpec
from kd.data.class_names import CIFAR10
from tests.images import noise, png, write_cifar, write_folder, write_parquet


def grid_file(place: Path, **dataset: Any) -> str:
    path = place / "mine.yaml"
    spec = {
        "dataset": {"name": "pets", **dataset},
        "students": ["small_cnn"],
        "modes": ["baseline"],
        "recipe": {"epochs": 1},
    }
    path.write_text(json.dumps(spec))
    return str(path)


def dry_run(capsys: pytest.CaptureFixture[str], place: Path, **dataset: Any) -> tuple[int, str]:
    """Exit status and what was said, which is one line where something is wrong."""
    size = {"image_size": 32} if "name" not in dataset else {}  # as small_cnn likes it
    status = launch.main(["--grid", grid_file(place, **size, **dataset), "--dry-run", "--storage", str(place / "runs")])
    out, err = capsys.readouterr()
    assert (out if status else err) == ""
    assert not status or (err.startswith("error: ") and err.count("\n") == 1)
    return status, out or err


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    write_folder(tmp_path / "pets", {"train": 4, "test": 2})
    return tmp_path / "pets"


def test_a_dry_run_says_what_was_found(tmp_path: Path, pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pets / "train" / "cat" / "1.heic").write_bytes(b"")
    shutil.rmtree(pets / "test" / "dog")
    status, said = dry_run(capsys, tmp_path, folder=str(pets))
    assert status == 0
    lines = said.splitlines()
    assert lines[1:5] == [
        "Data set pets (train 8, val 0, test 2), 2 classes: cat, dog",
        "  warning: 1 of its 2 classes has no picture in the test split: 1 (dog)",
        "  1 file left out (.heic)",
        "Seeds [0]",
    ]


def test_a_data_set_known_by_name_has_its_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = dry_run(capsys, tmp_path, name="cifar10")
    assert status == 0
    assert (
        "Data set cifar10 (train 50000, val 0, test 10000), 10 classes: airplane, automobile, bird, cat, deer and 5 m"
        in said
    )


def test_pictures_of_16_bits_are_told_and_those_without_a_scale_refused(
    tmp_path: Path, pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in pets.rglob("*.png"):
        path.write_bytes(png(np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16 + 15))
    status, said = dry_run(capsys, tmp_path, folder=str(pets))
    assert (status, ": 12 of 16 bits used (dataset.white: 4095 " in said) == (0, True)
    assert dry_run(capsys, tmp_path, folder=str(pets), white=4095)[0] == 0
    Image.fromarray(np.zeros((12, 12), np.float32)).save(pets / "train" / "cat" / "f.tif")
    status, said = dry_run(capsys, tmp_path, folder=str(pets))
    assert (
        status,
        f"white in 1 picture, whose pixels are floating-point numbers or integers of 32 bits: {pets}" in said,
    ) == (2, True)


def test_labels_that_are_none_and_classes_without_pictures_are_refused_at_once(
    tmp_path: Path, pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parquet(tmp_path / "t.parquet", [png(image) for image in noise(4)], [1, 2, 4, 4])
    status, said = dry_run(capsys, tmp_path, parquet={"train": str(tmp_path / "t.parquet")}, test_size=2)
    assert (status, "2 of its 5 classes have no training picture: 0, 3" in said) == (2, True)
    table = pq.read_table(tmp_path / "t.parquet")
    pq.write_table(table.set_column(1, "label", pa.array([0, None, 1, 1])), tmp_path / "t.parquet")
    status, said = dry_run(capsys, tmp_path, parquet={"train": str(tmp_path / "t.parquet")}, test_size=2)
    assert (status, f"{tmp_path}/t.parquet: row 1 has no label" in said) == (2, True)
    (pets / "train" / "emu").mkdir()
    (pets / "val").mkdir()
    status, said = dry_run(capsys, tmp_path, folder=str(pets))
    assert status == 2
    assert "its val split has no picture; 1 of its 3 classes has no training picture: 2 (emu)" in said


def test_names_with_line_breaks_are_told_on_one_line(
    tmp_path: Path, pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pets / "train" / "cat" / "a.b\nc").write_bytes(b"")
    assert "  1 file left out (.b c)" in dry_run(capsys, tmp_path, folder=str(pets))[1].splitlines()
    (pets / "train" / "e\nmu").mkdir()
    status, said = dry_run(capsys, tmp_path, folder=str(pets))
    assert (status, "no training picture: 2 (e mu)" in said) == (2, True)


def test_a_class_too_small_for_the_splits_is_refused_when_they_are_planned(
    tmp_path: Path, pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(pets / "test")
    for path in sorted((pets / "train" / "dog").iterdir())[1:]:
        path.unlink()
    status, said = dry_run(capsys, tmp_path, folder=str(pets), test_size=2)
    assert (status, "data set pets: a " in said, "leaves out class 1" in said) == (2, True, True)


def test_a_test_set_smaller_than_the_number_of_classes_is_taken(tmp_path: Path, pets: Path) -> None:
    shutil.rmtree(pets / "test" / "dog")
    (pets / "test" / "cat" / "1.png").unlink()
    assert load_grid(grid_file(tmp_path, folder=str(pets))).dataset.splits == {"train": 8, "val": 0, "test": 1}


@pytest.mark.parametrize(
    ("dataset", "line"),
    [
        ({"name": "cifar10", "white": 255}, "white belongs to parquet and folder: cifar10's own is known"),
        ({"name": "cifar10", "class_order": "natural"}, "class_order belongs to parquet and folder: cifar10's own"),
        ({"name": "cifar10", "classes": ["a", "b"]}, "classes belongs to parquet and folder: cifar10's own is known"),
        ({"folder": "x", "white": 0}, "dataset.white: Input should be greater than or equal to 1"),
        ({"folder": "x", "white": 65_536}, "dataset.white: Input should be less than or equal to 65535"),
        ({"folder": "x", "classes": ["a", "b", "a"]}, "dataset: classes: 'a' is given twice"),
        ({"folder": "x", "classes": ["a", 1, "1"]}, "dataset: classes: '1' is given twice"),
        ({"folder": "x", "classes": ["a"], "class_order": "natural"}, "dataset: give classes or class_order, not both"),
        ({"folder": "x", "class_order": "numeric"}, "dataset.class_order: Input should be 'text' or 'natural'"),
        ({"folder": "x", "classes": []}, "dataset.classes: "),
        ({"folder": "x", "classes": [True]}, "dataset.classes.0: "),
    ],
)
def test_wrong_keys_are_one_clear_line(dataset: dict[str, Any], line: str) -> None:
    grid = {"name": "mine", "dataset": {"name": "pets", **dataset}, "students": ["small_cnn"], "modes": ["baseline"]}
    with pytest.raises(UserError) as caught:
        spec_from_dict(grid, what="grid mine")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_grid_of_before_reads_as_it_was(tmp_path: Path, pets: Path) -> None:
    """The plan of an older launch has no notes, and its facts are the same all the same."""
    dataset = load_grid(grid_file(tmp_path, folder=str(pets))).dataset
    facts = json.loads(dataset.model_dump_json())
    for new in ("white", "classes", "class_order"):
        del facts[new]
    for new in ("some_classes", "notes"):
        del facts["facts"][new]
    assert DatasetSpec.model_validate_json(json.dumps(facts)) == dataset
    assert label_names(DatasetSpec.model_validate_json(json.dumps(facts))) == ["cat", "dog"]


def test_the_names_of_classes_in_their_order(tmp_path: Path, pets: Path) -> None:
    def names(**dataset: Any) -> list[str] | None:
        return label_names(located(DatasetSpec(**dataset), None))

    assert names(name="pets", folder=str(pets), classes=("dog", "cat")) == ["dog", "cat"]
    path = tmp_path / "t.parquet"
    write_parquet(path, [png(image) for image in noise(10)], list(range(10)))
    parquet = {"train": str(path), "test": str(path)}
    assert names(name="pets", parquet=parquet) is None
    assert names(name="cifar10", parquet=parquet) == list(CIFAR10)
    order = tuple(str(number) for number in (1, 0, *range(2, 10)))
    assert names(name="cifar10", parquet=parquet, classes=order) == list(order)


def test_a_cifar_of_the_users_that_lacks_a_class_is_refused(tmp_path: Path) -> None:
    write_cifar(tmp_path / "data", "cifar10", train=8, test=20)
    with pytest.raises(UserError, match=r"data set cifar10: 2 of its 10 classes have no training picture: 8 \(ship\)"):
        load_grid(grid_file(tmp_path, name="cifar10"), data=str(tmp_path / "data"))
