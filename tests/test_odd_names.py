"""Names of files that are no UTF-8, and a locale that knows no other than ASCII: one line says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import launch
from analysis import cli
from grid.contract.text import path_problem, shown_path
from kd.data.sources import DatasetError, sha256_of
from tests.conftest import tiny_grid
from tests.images import noise, png

ROOT = Path(__file__).parents[1]
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

LATIN = os.fsdecode(b"w_\xfc")  # as old disks and archives have it


def refused(capsys: pytest.CaptureFixture[str], status: int) -> str:
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def grid_file(folder: Path, **changes: object) -> str:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_grid(**changes), allow_unicode=True), encoding="utf-8")
    return str(path)


def picture_folder(folder: Path, name: bytes) -> Path:
    """Two classes with images of noise, whose second class and files are called by these bytes."""
    for split in (b"train", b"test"):
        for label in (b"a", name):
            place = os.path.join(os.fsencode(folder), split, label)
            os.makedirs(place)
            for i, image in enumerate(noise(12, seed=0)):
                with open(os.path.join(place, b"%s%d.png" % (name, i)), "wb") as file:
                    file.write(png(image))
    return folder


@pytest.mark.parametrize("command", ["a dry run", "--status", "a table", "an export"])
def test_a_storage_whose_name_is_no_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    place = ["--storage", LATIN]
    if command == "a dry run":
        status = launch.main(["--grid", grid_file(tmp_path), "--dry-run", *place])
    elif command == "--status":
        status = launch.main(["--status", "tiny", *place])
    else:
        words = ["table"] if command == "a table" else ["export", "tiny", "--student", "x", "--to", str(tmp_path / "x")]
        status = cli.main([*words, *place])
    line = refused(capsys, status)
    assert f"--storage {tmp_path}/w_\\xfc: is not in UTF-8" in line
    assert "rename it" in line


def test_a_working_folder_whose_name_is_no_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / LATIN).mkdir()
    monkeypatch.chdir(tmp_path / LATIN)
    status = launch.main(["--grid", grid_file(tmp_path), "--dry-run"])
    assert f"--storage {tmp_path}/w_\\xfc/runs: is not in UTF-8" in refused(capsys, status)


def test_pictures_whose_names_are_no_text_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = picture_folder(tmp_path / "pictures", b"caf\xe9")
    data = {"name": "mine", "folder": str(folder), "train_size": 20, "val_size": 4}
    line = refused(capsys, launch.main(["--grid", grid_file(tmp_path, dataset=data), "--dry-run"]))
    assert f"{folder}/test/a/caf\\xe90.png: its name is not in UTF-8" in line
    assert "rename it" in line


def test_the_folder_of_data_is_refused_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, launch.main(["--grid", "cifar100_full", "--data", f"{tmp_path}/{LATIN}", "--dry-run"]))
    assert f"--data {tmp_path}/w_\\xfc: is not in UTF-8" in line


def test_what_has_no_place_in_an_id_is_named_with_its_path() -> None:
    with pytest.raises(DatasetError, match=r"^/data/w_\\xfc: its name is not in UTF-8"):
        sha256_of({LATIN: Path("/data") / LATIN})
    with pytest.raises(DatasetError, match=r"^w_\\xfc: "):
        sha256_of({LATIN: b""})


def test_a_path_is_shown_as_a_shell_takes_it() -> None:
    assert path_problem("größe/学") is None
    assert path_problem("s3://bucket/größe") is None
    assert path_problem(LATIN) is not None
    assert shown_path(f"größe/{LATIN}\x1b") == r"größe/w_\xfc\x1b"


IN_C_LOCALE = """
import json, sys
import launch
from analysis import cli

for argv in json.load(sys.stdin):  # decoded as a command line is there
    main = cli.main if argv[0] == "table" else launch.main
    assert main(argv) == 2, argv
"""


@pytest.mark.long
def test_a_locale_of_ascii_is_named_as_the_cause(tmp_path: Path) -> None:
    """Whatever the name stands in: the command line, a grid file, a folder of images, the working folder."""
    home = tmp_path / "größe"
    picture_folder(home / "pictures", "café".encode())
    picture_folder(tmp_path / "pictures", "café".encode())
    files = {}
    student = tiny_grid()["students"][0]
    for what, changes in {
        "folder": {"dataset": {"name": "mine", "folder": str(home / "pictures"), "val_size": 4}},
        "names": {"dataset": {"name": "mine", "folder": str(tmp_path / "pictures"), "val_size": 4}},
        "checkpoint": {"students": [{**student, "checkpoint": "größe.safetensors"}]},
        "factory": {"students": [{"label": "Größe", "factory": "größe.py:mlp"}]},
    }.items():
        (tmp_path / what).mkdir()
        files[what] = grid_file(tmp_path / what, **changes)
    plain = grid_file(tmp_path)
    storage = ["--storage", f"{tmp_path}/größe"]
    commands = [
        ["--grid", plain, "--dry-run", *storage],
        ["--grid", plain, *storage],
        ["--status", "tiny", *storage],
        ["table", "tiny", *storage],
        ["--grid", plain, "--dry-run"],
        *(["--grid", file, "--dry-run", "--storage", str(tmp_path)] for file in files.values()),
    ]
    done = subprocess.run(
        [sys.executable, "-c", IN_C_LOCALE],
        cwd=home,
        env={**os.environ, **C_LOCALE, "PYTHONPATH": str(ROOT)},
        input=json.dumps(commands, ensure_ascii=False).encode(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b""), done.stderr.decode()
    lines = done.stderr.decode("ascii").splitlines()
    assert len(lines) == len(commands), lines
    for line, command in zip(lines, commands, strict=True):
        assert line.startswith("error: "), command
        assert "names are in ascii: set PYTHONUTF8=1" in line, command
        assert "gr\\xf6\\xdfe" in line or "caf\\xe9" in line, command
