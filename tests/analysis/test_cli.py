"""`python -m analysis` as its user meets it: text on stdout, one line of error on stderr, an exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from analysis import cli
from analysis.cli import main
from analysis.read.load import load_grid
from tests.analysis.conftest import ROOT, SyntheticGrid
from tests.analysis.reading import markdown_table

Maker = Callable[..., SyntheticGrid]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def grid(make_grid: Maker) -> SyntheticGrid:
    return make_grid("tiny", dataset="mnist").fill(
        {"ViT-T": 90.0, ("ResNet-S", None): [80.0, 81.0, 82.0], ("ResNet-S", "ViT-T"): [81.0, 83.0, 85.0]}
    )


def refused(capsys: Capture) -> str:
    """The one line of a refusal, of which nothing is on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err


def test_the_table_is_printed(grid: SyntheticGrid, capsys: Capture) -> None:
    assert main(["table", "tiny", "--storage", grid.storage]) == 0
    out, err = capsys.readouterr()
    assert out == markdown_table(load_grid(grid.storage, "tiny"))
    assert "| +2.00 [-0.48, +4.48] |" in out
    assert err == ""


def test_the_default_is_the_grid_launched_last_in_runs(grid: SyntheticGrid, make_grid: Maker, capsys: Capture) -> None:
    # The current folder is the one that holds runs/.
    make_grid("later", modes=["baseline"], written_at="2027-01-01T00:00:00+00:00")
    assert main(["table"]) == 0
    assert capsys.readouterr().out.startswith("### later\n")
    assert main(["table", "tiny"]) == 0
    assert capsys.readouterr().out.startswith("### tiny\n")


def test_an_unfinished_grid_is_no_error(make_grid: Maker, capsys: Capture) -> None:
    grid = make_grid()
    grid.fail(grid.rows[0])
    assert main(["table", "--storage", grid.storage]) == 0
    assert "stands on 0 of 7 teachers and cells (1 failed, 6 missing)" in capsys.readouterr().out


def test_output_goes_to_a_file(grid: SyntheticGrid, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "table.md"
    file.write_text("what was there before, and longer than nothing")
    assert main(["table", "--storage", grid.storage, "--output", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == markdown_table(load_grid(grid.storage))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "options", "start"),
    [
        ("x.CSV", [], "grid,"),
        ("x.Tex", [], "% tiny"),
        ("x.md", ["--format", "csv"], "grid,"),
        ("x.xlsx", ["--format", "csv"], "grid,"),
        ("x", [], "### tiny"),
    ],
)
def test_the_ending_says_the_format(
    grid: SyntheticGrid, tmp_path: Path, name: str, options: list[str], start: str
) -> None:
    assert main(["table", "--storage", grid.storage, "--output", str(tmp_path / name), *options]) == 0
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)


@pytest.mark.parametrize("command", ["table", "records"])
def test_an_ending_that_says_nothing_is_refused(
    grid: SyntheticGrid, tmp_path: Path, capsys: Capture, command: str
) -> None:
    file = tmp_path / "x.xlsx"
    assert main([command, "--storage", grid.storage, "--output", str(file)]) == 2
    known = "end it in .md, .html, .tex, .csv, .json, .parquet, or give --format"
    assert refused(capsys) == f"error: --output {file}: no format is known by .xlsx: {known}\n"
    assert not file.exists()


@pytest.mark.parametrize("place", ["no/such/folder/table.md", "runs"])
def test_output_that_cannot_be_written(grid: SyntheticGrid, tmp_path: Path, capsys: Capture, place: str) -> None:
    assert main(["table", "--storage", grid.storage, "--output", str(tmp_path / place)]) == 2
    assert str(tmp_path / place) in refused(capsys)


def test_an_unknown_grid_is_bad_input(grid: SyntheticGrid, capsys: Capture) -> None:
    assert main(["table", "tinny", "--storage", grid.storage]) == 2
    assert refused(capsys) == f"error: no grid 'tinny' was run in {grid.storage}; there are tiny\n"


def test_no_grid_at_all_is_bad_input(capsys: Capture) -> None:
    assert main(["table"]) == 2
    assert "no grid was run in ./runs: run kd-grid --grid digits" in refused(capsys)


@pytest.mark.parametrize("arguments", [["table"], ["table", "digits"]])
def test_a_storage_that_is_a_file_is_bad_input(tmp_path: Path, capsys: Capture, arguments: list[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([*arguments, "--storage", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in refused(capsys)


def test_a_storage_of_an_unknown_kind_is_bad_input(capsys: Capture) -> None:
    assert main(["table", "--storage", "nowhere://there"]) == 2
    assert "--storage nowhere://there: " in refused(capsys)


def test_a_folder_with_a_chain_in_its_name_is_bad_input(grid: SyntheticGrid, capsys: Capture) -> None:
    """What lies before it would be read in its place."""
    assert main(["table", "--storage", f"{grid.storage}::x"]) == 2
    assert f"--storage {grid.storage}::x: '::' chains URLs" in capsys.readouterr().err


def test_a_storage_that_cannot_be_read_is_named_with_the_file(grid: SyntheticGrid, capsys: Capture) -> None:
    plan = grid.root / "grids/tiny/plan.json"
    plan.unlink()
    plan.mkdir()
    empty = str(grid.root.with_name("empty"))
    assert main(["table", "tiny", "--storage", empty, "--storage", grid.storage]) == 2
    assert refused(capsys) == f"error: --storage {grid.storage}: grids/tiny/plan.json: Is a directory\n"


def test_an_error_of_any_kind_of_storage_is_the_storages(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise ValueError("no\ncredentials")

    monkeypatch.setattr(MemoryFileSystem, "ls", refuse)
    assert main(["table", "--storage", "memory://there"]) == 2
    assert refused(capsys) == "error: --storage memory://there: grids: no credentials\n"


def test_what_else_fails_is_not_blamed_on_the_storage(grid: SyntheticGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setitem(cli.RUN, "table", full)
    with pytest.raises(OSError, match="no space left on device"):
        main(["table", "--storage", grid.storage])


def test_nothing_is_written_where_there_is_no_table(tmp_path: Path) -> None:
    file = tmp_path / "table.md"
    assert main(["table", "--output", str(file)]) == 2
    assert not file.exists()


@pytest.mark.parametrize("arguments", [[], ["tables"], ["table", "--storge", "x"], ["compare", "a", "b"]])
def test_a_wrong_command_line_is_bad_input(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments) == 2
    assert "usage: kd-analysis" in capsys.readouterr().err


def analysis(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "analysis", *arguments], cwd=cwd, capture_output=True, text=True)


def test_python_m_analysis_has_help() -> None:
    done = analysis("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m analysis ")
    assert "table" in done.stdout


def test_python_m_analysis_exits_with_the_status(grid: SyntheticGrid, tmp_path: Path) -> None:
    done = analysis("table", "--storage", grid.storage)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("### tiny\n")
    refused = analysis("table", "--storage", str(tmp_path / "nothing"))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: no grid was run in ")


@pytest.mark.parametrize("errors_too", [False, True])
@pytest.mark.parametrize(
    "arguments", [["table"], ["records"], ["records", "--format", "parquet"], ["report", "--output", "page.html"]]
)
def test_nobody_reading_any_more_is_no_error(grid: SyntheticGrid, arguments: list[str], errors_too: bool) -> None:
    grid.write(f"{grid.folder(grid.rows[0])}/record.json", b"{")  # something for stderr
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "analysis", *arguments, "--storage", grid.storage]
    err = write if errors_too else subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=write, stderr=err, text=True, env=environment)
    os.close(write)
    assert done.returncode == 0
    assert not [line for line in (done.stderr or "").splitlines() if not line.startswith("warning: ")]
    assert Path("page.html").is_file() == (arguments[0] == "report")
