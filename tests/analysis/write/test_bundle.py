"""A bundle holds what the commands read of a grid, and no more; the same storage gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.cli import main
from analysis.read.bundle import MANIFEST
from tests.analysis.conftest import Row, SyntheticGrid
from tests.analysis.read.test_bundle import files_in
from tests.analysis.test_cli import refused
from tests.analysis.test_digits_records import RECORDS, STUDY, change_plan, copied

Maker = Callable[..., SyntheticGrid]
Capture = pytest.CaptureFixture[str]
TOP1 = {"ViT-T": 92.0, ("ResNet-S", None): (80.0, 81.0, 82.0), ("ResNet-S", "ViT-T"): (82.0, 83.5, 83.0)}


@pytest.fixture
def grid(make_grid: Maker) -> SyntheticGrid:
    return make_grid().fill(TOP1)


def bundled(storage: str | Path, file: Path, *more: str, name: str = "tiny") -> Path:
    assert main(["bundle", name, str(file), "--storage", str(storage), *more]) == 0
    return file


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A real launch's storage, beside a study's figures, and its bundle."""
    folder = tmp_path_factory.mktemp("digits")
    storage = copied(folder / "runs")
    change_plan(storage, lambda plan: plan["spec"].update(published=STUDY.model_dump(mode="json")))
    return storage, bundled(storage, folder / "digits.zip", name="digits")


@pytest.mark.parametrize(
    ("command", "name"),
    [("table", "a.json"), ("table", "a.md"), ("compare", "a.md"), ("records", "a.csv"), ("curves", "a.csv")],
)
def test_commands_say_of_a_bundle_what_they_say_of_its_storage(
    digits: tuple[Path, Path], capsys: Capture, command: str, name: str
) -> None:
    said = []
    for storage in digits:
        assert main([command, "--storage", str(storage), "--output", name]) == 0
        said.append(Path(name).read_bytes())
    assert said[0] == said[1]
    assert len(said[0]) > 1000
    assert capsys.readouterr() == ("", "")


def test_the_page_of_a_bundle_is_that_of_its_storage(digits: tuple[Path, Path]) -> None:
    for storage in digits:
        assert main(["report", "--storage", str(storage), "--output", f"{storage.name}.html"]) == 0
    assert Path("runs.html").read_bytes() == Path("digits.zip.html").read_bytes()


@pytest.mark.parametrize("command", ["plots", "report"])
def test_nothing_is_written_into_a_bundle(digits: tuple[Path, Path], capsys: Capture, command: str) -> None:
    before = digits[1].read_bytes()
    assert main([command, "--storage", str(digits[1])]) == 2
    assert refused(capsys) == "error: give --output: nothing is written into a bundle, or to a storage by URL\n"
    assert digits[1].read_bytes() == before


def test_a_student_is_not_exported_from_a_bundle(digits: tuple[Path, Path], capsys: Capture) -> None:
    assert main(["export", "--storage", str(digits[1]), "--to", "published"]) == 2
    assert "a bundle has no weights: give the storage that it was made of" in refused(capsys)


def test_the_manifest_has_the_hash_of_every_file(digits: tuple[Path, Path]) -> None:
    files = files_in(digits[1])
    manifest = json.loads(files.pop(MANIFEST))
    assert (manifest["schema_version"], manifest["grid"]) == (1, "digits")
    assert manifest["files"] == {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    assert files == {path: (digits[0] / path).read_bytes() for path in files}
    of_storage = {str(path.relative_to(RECORDS)) for path in RECORDS.rglob("*") if path.is_file()}
    named = ("plan.json", "record.json", "dataset.json", "curve.parquet")
    assert files.keys() == {path for path in of_storage if path.rpartition("/")[2] in named}


def test_the_same_storage_gives_the_same_bytes(digits: tuple[Path, Path], tmp_path: Path) -> None:
    """Whenever its files were written, in whatever order, and if it is a bundle itself."""
    again = tmp_path / "again"
    for path in sorted(digits[0].rglob("*"), reverse=True):
        if path.is_file():
            to = again / path.relative_to(digits[0])
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
            os.utime(to, (0, 0))
    first = digits[1].read_bytes()
    assert bundled(again, tmp_path / "other name.zip", name="digits").read_bytes() == first
    assert bundled(digits[1], tmp_path / "of a bundle.zip", name="digits").read_bytes() == first


def named(grid: SyntheticGrid, row: Row, files: dict[str, bytes], **facts: str) -> str:
    """A result whose record names these files, which are there. Returns its folder."""
    for name, data in files.items():
        grid.write(f"{grid.folder(row)}/{name}", data)
    sizes = json.dumps({name: len(data) for name, data in files.items()})
    grid.done(row, 80.0, files=sizes, **facts)
    return grid.folder(row)


def hashed(stem: str, ending: str, data: bytes) -> tuple[str, str]:
    sha256 = hashlib.sha256(data).hexdigest()
    return f"{stem}-{sha256[:16]}.{ending}", sha256


def test_what_records_name_is_in_it_but_weights(grid: SyntheticGrid, tmp_path: Path, capsys: Capture) -> None:
    weights, predictions = b"the weights", b"float16 logits of val and test"
    weights_name, sha256 = hashed("model", "safetensors", weights)
    name, _ = hashed("predictions", "safetensors", predictions)
    folder = named(grid, grid.rows[1], {weights_name: weights, name: predictions}, weights_sha256=sha256)
    grid.write(f"{folder}/{hashed('predictions', 'safetensors', b'of before')[0]}", b"of before")  # named by nobody
    files = files_in(bundled(grid.root, tmp_path / "tiny.zip"))
    assert [path for path in files if path.startswith(folder)] == [f"{folder}/record.json", f"{folder}/{name}"]
    assert files[f"{folder}/{name}"] == predictions
    assert [line for line in capsys.readouterr().err.splitlines() if "curve" not in line] == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda file: file.write_bytes(b"shorter"), "not of the size that its record names: left out"),
        (lambda file: file.write_bytes(file.read_bytes()[::-1]), "not the bytes that its name is of: left out"),
        (lambda file: file.unlink(), "missing"),
    ],
)
def test_what_is_not_as_its_record_says_is_left_out_and_named(
    grid: SyntheticGrid, tmp_path: Path, capsys: Capture, change: Callable[[Path], object], why: str
) -> None:
    data = b"float16 logits of val and test"
    name, _ = hashed("predictions", "safetensors", data)
    folder = named(grid, grid.rows[1], {name: data})
    change(grid.root / folder / name)
    assert f"{folder}/{name}" not in files_in(bundled(grid.root, tmp_path / "tiny.zip"))
    assert f"warning: {folder}/{name}: {why}" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("name", ["../../secret.json", "/etc/hostname", "..", "deeper/file", ".hidden", "with space"])
def test_a_record_names_no_file_elsewhere(grid: SyntheticGrid, tmp_path: Path, capsys: Capture, name: str) -> None:
    (grid.root / "secret.json").write_bytes(b"secret")
    row = grid.rows[1]
    grid.done(row, 80.0, files=json.dumps({name: 6}))
    files = files_in(bundled(grid.root, tmp_path / "tiny.zip"))
    assert b"secret" not in [data for path, data in files.items() if path != MANIFEST]
    assert f"warning: {grid.folder(row)}/{name}: no name of a file: left out" in capsys.readouterr().err


def test_a_damaged_curve_is_left_out_and_named(grid: SyntheticGrid, tmp_path: Path, capsys: Capture) -> None:
    row = grid.rows[1]
    grid.done(row, 80.0, curve_sha256="0" * 64)
    grid.curve(row, [{"epoch": 1, "train_loss": 0.5}])
    path = f"{grid.folder(row)}/curve.parquet"
    assert path not in files_in(bundled(grid.root, tmp_path / "tiny.zip"))
    assert f"warning: {path}: not the curve of its record: left out" in capsys.readouterr().err


def test_a_data_set_has_its_facts_and_labels_without_images(
    grid: SyntheticGrid, tmp_path: Path, capsys: Capture
) -> None:
    files = {
        "dataset.json": b"{}",
        "test_images.npy": b"images",
        "test_labels.npy": b"labels",
        "train_labels.npy": b"x",
    }
    row = {"kind": "dataset", "stage_id": "0" * 16, "teacher": None, "student": None}
    for name, data in files.items():
        grid.write(f"datasets/{row['stage_id']}/{name}", data)
    sizes = json.dumps({name: len(data) for name, data in files.items()})
    grid.write(f"datasets/{row['stage_id']}/record.json", grid.record(row, status="done", files=sizes))
    grid.write_plan(stages=[{"id": row["stage_id"], "kind": "dataset"}, *grid.plan["stages"]])
    there = files_in(bundled(grid.root, tmp_path / "tiny.zip"))
    names = [path.rpartition("/")[2] for path in there if path.startswith("datasets/")]
    assert names == ["record.json", "dataset.json", "test_labels.npy"]


def test_unfinished_stages_are_counted_and_failures_are_in_it(
    make_grid: Maker, tmp_path: Path, capsys: Capture
) -> None:
    grid = make_grid().fill({"ViT-T": 92.0, ("ResNet-S", None): (80.0, None, None)})
    grid.fail(grid.one(mode="distilled", seed=0), "ValueError: no such class")
    file = bundled(grid.root, tmp_path / "tiny.zip")
    out, err = capsys.readouterr()
    assert out.startswith(f"{file}: grid tiny, 3 stages, 4 files, ")
    assert "warning: 4 of 7 stages are unfinished and not in the bundle: 4 missing\n" in err
    assert main(["table", "--storage", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "ValueError: no such class" in shown
    assert "2 of 7 teachers and cells (1 failed, 4 missing)" in shown


def test_nothing_is_written_over_unless_it_is_told_to(grid: SyntheticGrid, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "tiny.zip"
    file.write_bytes(b"somebody's")
    assert main(["bundle", "tiny", str(file), "--storage", grid.storage]) == 2
    assert refused(capsys) == f"error: {file}: there is something already: give another name, or --replace\n"
    assert file.read_bytes() == b"somebody's"
    bundled(grid.root, file, "--replace")
    assert zipfile.is_zipfile(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "tiny.zip"]


def test_options_may_stand_anywhere(grid: SyntheticGrid, tmp_path: Path) -> None:
    assert main(["bundle", "tiny", "--storage", grid.storage, str(tmp_path / "tiny.zip")]) == 0
    assert zipfile.is_zipfile(tmp_path / "tiny.zip")


def test_a_bundle_that_fails_leaves_nothing(
    grid: SyntheticGrid, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    assert main(["bundle", "tiny", str(tmp_path / "tiny.zip"), "--storage", grid.storage]) == 2
    assert refused(capsys) == f"error: {tmp_path / 'tiny.zip'}: No space left on device\n"
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("tiny.tar", "end it in .zip, by which a bundle is known"),
        ("no/such/folder/tiny.zip", "No such file or directory"),
        ("folder.zip", "a folder, not a file to write"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_line(
    grid: SyntheticGrid, tmp_path: Path, capsys: Capture, name: str, why: str
) -> None:
    (tmp_path / "folder.zip").mkdir()
    file = tmp_path / name
    assert main(["bundle", "tiny", str(file), "--storage", grid.storage, "--replace"]) == 2
    assert refused(capsys) == f"error: {file}: {why}\n"


def test_several_bundles_and_storages_are_read_together(make_grid: Maker, tmp_path: Path, capsys: Capture) -> None:
    """Of a grid the two halves that two machines have, and another grid."""
    grid = make_grid().fill({"ViT-T": 92.0, ("ResNet-S", None): (80.0, 81.0, 82.0)})
    half = bundled(grid.root, tmp_path / "half.zip")
    other = bundled(make_grid("other").fill(TOP1).root, tmp_path / "other.zip", name="other")
    rest = tmp_path / "rest"
    shutil.copytree(grid.root / "grids/tiny", rest / "grids/tiny")
    shutil.copytree(grid.root / "cells", rest / "cells")
    capsys.readouterr()
    assert main(["table", "--all", "--storage", str(half), "--storage", str(rest), "--storage", str(other)]) == 0
    out = capsys.readouterr().out
    assert "| tiny " in out
    assert "| other " in out
    assert "+1.83" in out, "of the gains 2, 2.5 and 1"
