"""A bundle is read as a storage is, and strictly: what is no bundle, or another than it says, is one line."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import fsspec
import polars as pl
import pytest

from analysis.cli import main
from analysis.read.bundle import MANIFEST
from analysis.read.curves import curves
from analysis.read.load import load_grid
from grid.contract.files.limits import LARGE, SMALL
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.test_cli import refused

Maker = Callable[..., SyntheticGrid]
Capture = pytest.CaptureFixture[str]
TOP1 = {"ViT-T": 92.0, ("ResNet-S", None): (80.0, 81.0, 82.0), ("ResNet-S", "ViT-T"): (82.0, 83.5, 83.0)}


@pytest.fixture
def grid(make_grid: Maker) -> SyntheticGrid:
    return make_grid().fill(TOP1)


@pytest.fixture
def bundle(grid: SyntheticGrid, tmp_path: Path, capsys: Capture) -> Path:
    file = tmp_path / "tiny.zip"
    assert main(["bundle", "tiny", str(file), "--storage", grid.storage]) == 0
    capsys.readouterr()
    return file


def files_in(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(file: Path, files: Mapping[str, bytes], *, how: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=how)


def signed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files with a manifest that is true of them."""
    others = {name: data for name, data in files.items() if name != MANIFEST}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in others.items()}
    return {**others, MANIFEST: json.dumps({"schema_version": 1, "grid": "tiny", "files": sums}).encode()}


def shown(bundle: Path, capsys: Capture) -> str:
    assert main(["table", "--storage", str(bundle)]) == 2
    return refused(capsys)


def test_one_that_was_zipped_again_is_read_as_before(bundle: Path, grid: SyntheticGrid, capsys: Capture) -> None:
    write(bundle, dict(reversed(files_in(bundle).items())))
    assert main(["table", "--storage", str(bundle)]) == 0
    from_bundle = capsys.readouterr()
    assert main(["table", "--storage", grid.storage]) == 0
    assert capsys.readouterr() == from_bundle


def test_a_name_without_an_ending_is_read_too(bundle: Path, capsys: Capture) -> None:
    other = bundle.rename(bundle.with_name("results"))
    assert main(["table", "--storage", str(other)]) == 0
    assert "ResNet-S" in capsys.readouterr().out


def test_a_folder_may_be_called_like_a_bundle(grid: SyntheticGrid, tmp_path: Path, capsys: Capture) -> None:
    folder = grid.root.rename(tmp_path / "runs.zip")
    assert main(["table", "--storage", str(folder)]) == 0
    assert "ResNet-S" in capsys.readouterr().out


def test_one_by_url_is_read(bundle: Path, capsys: Capture) -> None:
    place = "memory://kept/tiny.zip"
    with fsspec.open(place, "wb") as file:
        file.write(bundle.read_bytes())
    assert main(["table", "--storage", place]) == 0
    assert "ResNet-S" in capsys.readouterr().out
    assert main(["table", "--storage", "memory://kept/other.zip"]) == 2
    assert refused(capsys) == "error: --storage memory://kept/other.zip: there is no such file\n"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "there is no such file"),
        (b"", "no bundle: File is not a zip file"),
        (b"not a zip file at all", "no bundle: File is not a zip file"),
    ],
)
def test_no_zip_file_is_one_line(tmp_path: Path, capsys: Capture, data: bytes | None, why: str) -> None:
    file = tmp_path / "odd.zip"
    if data is not None:
        file.write_bytes(data)
    line = shown(file, capsys)
    assert line.startswith(f"error: --storage {file}: {why}")
    assert data is None or "bundle GRID FILE.zip makes one" in line


def test_a_truncated_one_is_one_line(bundle: Path, capsys: Capture) -> None:
    bundle.write_bytes(bundle.read_bytes()[:-100])
    assert "no bundle: File is not a zip file" in shown(bundle, capsys)


def test_another_zip_file_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "other.zip", {"a.txt": b"a"})
    assert f"no bundle but another zip file: it has no {MANIFEST}" in shown(tmp_path / "other.zip", capsys)


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        (b"{", "bundle.json: no manifest: "),
        (b"[]", "bundle.json: no manifest: not an object of JSON"),
        (b"{}", "bundle.json: no manifest of a bundle"),
        (b'{"schema_version": 1, "files": {"grids/tiny/plan.json": "00"}}', "bundle.json: no manifest of a bundle"),
        (b'{"schema_version": 2, "files": {}}', "a bundle of version 2, newer than this program: update it"),
        (b'{"schema_version": 1, "files": {}}', "the bundle holds, against its manifest, cells/"),
    ],
)
def test_an_odd_manifest_is_one_line(bundle: Path, capsys: Capture, manifest: bytes, why: str) -> None:
    write(bundle, {**files_in(bundle), MANIFEST: manifest})
    assert why in shown(bundle, capsys)


def test_a_file_that_is_gone_or_too_much_is_named(bundle: Path, capsys: Capture) -> None:
    files = files_in(bundle)
    write(bundle, {name: data for name, data in files.items() if name != "grids/tiny/plan.json"})
    assert "the bundle lacks grids/tiny/plan.json; copy it again" in shown(bundle, capsys)
    write(bundle, {**files, "cells/more/record.json": b"{}"})
    assert "the bundle holds, against its manifest, cells/more/record.json; " in shown(bundle, capsys)


@pytest.mark.parametrize(
    "path", ["../out.json", "/etc/passwd", "cells/../../x", "cells//x", "./x", "cells\\..\\x", "a/"]
)
def test_a_path_that_leads_out_is_refused(bundle: Path, capsys: Capture, path: str) -> None:
    write(bundle, signed({**files_in(bundle), path: b"{}"}))
    assert f"{path!r} is no path inside of a bundle; nothing of it is read" in shown(bundle, capsys)


def test_a_file_that_is_in_it_twice_is_refused(bundle: Path, capsys: Capture) -> None:
    with zipfile.ZipFile(bundle, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("grids/tiny/plan.json", b"{}")
    assert "grids/tiny/plan.json is in it twice" in shown(bundle, capsys)


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_refused(bundle: Path, capsys: Capture, how: int) -> None:
    write(bundle, files_in(bundle), how=how)
    assert "is encrypted, or compressed in a way that no bundle is" in shown(bundle, capsys)


@pytest.mark.parametrize(
    ("path", "size", "limit"),
    [("cells/more/record.json", SMALL + 1, "1 MiB"), ("cells/more/predictions-0.safetensors", LARGE + 1, "256 MiB")],
)
def test_what_would_unpack_to_more_than_a_storage_holds_is_refused(
    bundle: Path, capsys: Capture, path: str, size: int, limit: str
) -> None:
    with zipfile.ZipFile(bundle, "a", zipfile.ZIP_DEFLATED) as archive, archive.open(path, "w") as file:
        for _ in range(0, size, SMALL):
            file.write(bytes(SMALL))
        file.write(b"0")
    assert bundle.stat().st_size < 2**20
    assert f"{path} is larger than {limit}, which no file of its kind is" in shown(bundle, capsys)


def test_a_size_that_is_a_lie_is_no_way_around(bundle: Path, grid: SyntheticGrid, capsys: Capture) -> None:
    """The list of a zip says 10 bytes of what unpacks to more: no more are unpacked, and the file is named."""
    path = f"{grid.folder(grid.rows[0])}/record.json"
    write(bundle, {**files_in(bundle), path: bytes(SMALL)})
    with zipfile.ZipFile(bundle) as archive:
        at = archive.start_dir
    data = bytearray(bundle.read_bytes())
    place = data.index(path.encode(), at) - 46  # the entry of the list begins so far before its name
    data[place + 24 : place + 28] = (10).to_bytes(4, "little")
    bundle.write_bytes(bytes(data))
    assert main(["table", "--storage", str(bundle)]) == 0
    assert f"{path}: damaged: " in capsys.readouterr().out


def test_damaged_bytes_are_named_and_the_rest_is_shown(bundle: Path, grid: SyntheticGrid, capsys: Capture) -> None:
    row = grid.one(mode="baseline", seed=1)
    data = bundle.read_bytes()
    record = files_in(bundle)[f"{grid.folder(row)}/record.json"]
    bundle.write_bytes(data.replace(record, record.replace(b"0.81", b"0.91")))
    assert bundle.read_bytes() != data
    assert main(["table", "--storage", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert f"{grid.folder(row)}/record.json: damaged: " in out
    assert "+1.50" in out, "the gains of the other two seeds, 2 and 1 points"


def test_a_wrong_hash_is_named_and_the_rest_is_shown(bundle: Path, grid: SyntheticGrid, capsys: Capture) -> None:
    row = grid.one(mode="baseline", seed=1)
    path, files = f"{grid.folder(row)}/record.json", files_in(bundle)
    write(bundle, {**files, path: files[path].replace(b"0.81", b"0.91")})
    assert main(["table", "--storage", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert f"{path}: damaged: not the bytes that the bundle's manifest names; copy it again" in out
    assert "+1.50" in out


def test_a_damaged_plan_is_one_line(bundle: Path, capsys: Capture) -> None:
    files = files_in(bundle)
    plan = files["grids/tiny/plan.json"]
    write(bundle, {**files, "grids/tiny/plan.json": plan.replace(b"ResNet-S", b"ResNet-X")})
    assert "grids/tiny/plan.json: damaged: not the bytes" in shown(bundle, capsys)


def test_a_damaged_curve_is_named(grid: SyntheticGrid, tmp_path: Path) -> None:
    row = grid.one(mode="baseline", seed=1)
    grid.curve(row, [{"epoch": 1, "train_loss": 0.5}])
    file = tmp_path / "tiny.zip"
    assert main(["bundle", "tiny", str(file), "--storage", grid.storage]) == 0
    assert curves(load_grid(str(file))).select("epoch", "train_loss").rows() == [(1, 0.5)]
    path = f"{grid.folder(row)}/curve.parquet"
    write(file, {**files_in(file), path: b"PAR1"})
    found = load_grid(str(file))
    assert curves(found).filter(pl.col("stage_id") == row["stage_id"]).is_empty()
    assert [line for line in found.problems if line.startswith(f"--storage {file}: {path}: damaged: ")]
