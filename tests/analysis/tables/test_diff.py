"""`diff`: what a reader sees of two grids, and the exit status that CI goes by."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from analysis.cli import main
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.measures.test_diff import BEFORE, NOW
from tests.analysis.reading import markdown_rows
from tests.analysis.test_cli import refused
from tests.analysis.test_digits_records import RECORDS

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def sides(tmp_path: Path) -> tuple[SyntheticGrid, SyntheticGrid]:
    """The grid `tiny` in the storages `before` and `now` of the current folder."""
    return SyntheticGrid(tmp_path / "before").fill(BEFORE), SyntheticGrid(tmp_path / "now").fill(NOW)


def diff(*arguments: str, capsys: Capture, status: int = 0) -> str:
    assert main(["diff", "tiny@before", "tiny@now", *arguments]) == status
    return capsys.readouterr().out


def test_each_mean_stands_with_what_it_was(capsys: Capture) -> None:
    differences, gains = markdown_rows(diff(capsys=capsys))
    assert differences[0] == ["Teacher", "Student", "Before", "Now", "Difference", "By seed", "n", "Same stages"]
    assert differences[1:] == [
        ["ViT-T", "", "92.00", "90.50", "-1.50", "", "1", "1"],
        ["alone", "ResNet-S", "81.00", "81.00", "+0.00", "0: +0.00, 1: +0.00, 2: +0.00", "3", "3"],
        ["ViT-T", "ResNet-S", "82.83", "81.77", "-1.07 [-3.14, +1.00]", "0: -0.80, 1: -0.40, 2: -2.00", "3", "3"],
    ]
    # The gains are 2, 2.5, 1 and 1.2, 2.1, -1.
    assert gains[0] == ["Teacher", "Student", "Gain before", "Gain now", "Change"]
    ((*_, was, is_, change),) = gains[1:]
    assert was.startswith("+1.83 [")
    assert is_.startswith("+0.77 [")
    assert change == "-1.07"


@pytest.mark.parametrize(
    ("points", "status", "names"),
    [("1", 1, ["teacher ViT-T", "ViT-T → ResNet-S"]), ("1.2", 1, ["teacher ViT-T"]), ("1.5", 0, [])],
)
def test_the_exit_status_says_whether_a_mean_fell(capsys: Capture, points: str, status: int, names: list[str]) -> None:
    assert main(["diff", "tiny@before", "tiny@now", "--fail-below", points]) == status
    out, err = capsys.readouterr()
    many = "1 point" if points == "1" else f"{points} points"
    lines = err.splitlines()
    assert len(lines) == len(names)
    for line, name in zip(lines, names, strict=True):
        assert line.startswith(f"fallen by more than {many}: {name}")
    assert (f"None of 3 means fell by more than {many}." in out) == (status == 0)
    assert ("**Fallen**: by more than" in out) == (status == 1)


def test_which_fell_is_said_beside_data_too(capsys: Capture) -> None:
    assert main(["diff", "tiny@before", "tiny@now", "--fail-below", "1.2", "--format", "json"]) == 1
    out, err = capsys.readouterr()
    assert [row["n"] for row in json.loads(out)] == [1, 3, 3]
    assert err == "fallen by more than 1.2 points: teacher ViT-T: 92.00 to 90.50, -1.50 points (n = 1)\n"


def test_a_rise_is_no_fall(capsys: Capture) -> None:
    assert main(["diff", "tiny@now", "tiny@before", "--fail-below", "0"]) == 0
    assert capsys.readouterr().err == ""


def test_what_has_no_result_any_more_is_not_taken_for_unchanged(tmp_path: Path, capsys: Capture) -> None:
    shutil.rmtree(tmp_path / "now/teachers")
    SyntheticGrid(tmp_path / "now", seeds=(0, 1))
    assert main(["diff", "tiny@before", "tiny@now", "--fail-below", "1.5"]) == 0
    why = "not judged, done before and without a result now: 3 teachers and cells"
    assert capsys.readouterr().err == f"warning: --fail-below: {why}\n"


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "x"])
def test_an_odd_limit_is_bad_input(capsys: Capture, value: str) -> None:
    assert main(["diff", "tiny@before", "tiny@now", f"--fail-below={value}"]) == 2
    assert "give the points that a mean may fall by, 0 or more" in capsys.readouterr().err


def test_nothing_in_common_fails_a_limit_and_is_shown_without_one(tmp_path: Path, capsys: Capture) -> None:
    SyntheticGrid(tmp_path / "now", "other", students=("ViT-S",)).fill({("ViT-S", None): (70.0, 71.0, 72.0)})
    arguments = ["diff", "tiny@before", "other@now"]
    shutil.rmtree(tmp_path / "now/teachers")
    assert main([*arguments, "--fail-below", "1"]) == 2
    assert "have no teacher or cell in common that is done in both" in refused(capsys)
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "No teacher or cell is done in both." in out
    assert "- teacher ViT-T: done before, missing now\n" in out
    assert "- ResNet-S alone, seed 0: before only\n" in out
    assert "- ViT-S alone, seed 2: now only\n" in out


def test_what_is_unfinished_is_said_with_its_side(sides: tuple[SyntheticGrid, SyntheticGrid], capsys: Capture) -> None:
    row = sides[1].one(teacher="ViT-T", seed=1, kind="cell")
    shutil.rmtree(sides[1].root / sides[1].folder(row))
    sides[1].fail(row, "ValueError: no")
    out = diff(capsys=capsys)
    assert "**Unfinished, now**: this table stands on 6 of 7 teachers and cells (1 failed, 0 missing)." in out
    assert "- ResNet-S from ViT-T, seed 1, T 4, alpha 0.5: done before, failed now\n" in out
    assert "before**: this table" not in out


def test_other_data_is_said_first(tmp_path: Path, capsys: Capture) -> None:
    SyntheticGrid(tmp_path / "now", dataset="others").fill(NOW)
    out = diff(capsys=capsys)
    assert out.index("**Other data**: the two did not learn from") < out.index("| Teacher")
    assert markdown_rows(out)[-1][1] == ["dataset.name", '"digits"', '"others"']


def test_settings_have_columns_where_they_vary(tmp_path: Path, capsys: Capture) -> None:
    for name, top1 in (("before", 80.0), ("now", 81.0)):
        grid = SyntheticGrid(tmp_path / name, "two", temperature=(2.0, 4.0))
        for row in grid.rows:
            grid.done(row, top1)
    assert main(["diff", "two@before", "two@now"]) == 0
    differences, gains = markdown_rows(capsys.readouterr().out)
    assert [line[2] for line in differences] == ["Temperature", "", "", "2", "4"]
    assert [line[2] for line in gains] == ["Temperature", "2", "4"]


@pytest.mark.parametrize("name", ["a.md", "a.html", "a.tex", "a.csv", "a.json", "a.parquet"])
def test_every_format_holds_it(capsys: Capture, name: str) -> None:
    assert diff("--output", name, capsys=capsys) == ""
    data = Path(name).read_bytes()
    if name == "a.parquet":
        assert pl.read_parquet(io.BytesIO(data))["n"].to_list() == [1, 3, 3]
    else:
        assert b"ResNet-S" in data
        assert b"81.7" in data


def test_one_of_its_tables_alone(capsys: Capture) -> None:
    rows = json.loads(diff("--only", "gains", "--format", "json", capsys=capsys))
    assert [row["change_points"] for row in rows] == [pytest.approx(-3.2 / 3, abs=1e-8)]
    assert main(["diff", "tiny@before", "tiny@now", "--only", "none"]) == 2
    assert "there are differences, gains" in refused(capsys)


def test_a_side_is_a_grid_a_grid_of_a_storage_or_a_bundle(capsys: Capture) -> None:
    expected = markdown_rows(diff(capsys=capsys))
    for name in ("before", "now"):
        assert main(["bundle", "tiny", f"{name}.zip", "--storage", name]) == 0
    Path("of@home").mkdir()
    shutil.copyfile("now.zip", "of@home/now.zip")
    capsys.readouterr()
    for arguments in (
        ["before.zip", "now.zip"],
        ["before.zip", "tiny", "--storage", "now"],
        ["tiny", "@now", "--storage", "before"],
        ["tiny@before.zip", "tiny@now"],
        ["before.zip", "./of@home/now.zip"],
        ["before.zip", "tiny@of@home/now.zip"],
    ):
        assert main(["diff", *arguments]) == 0
        assert markdown_rows(capsys.readouterr().out) == expected


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["tiny@before", "other@now"], "no grid 'other' was run in now; there are tiny"),
        (["tiny@before", "tiny@nowhere"], "no grid 'tiny' was run in nowhere"),
        (["tiny@before", "none.zip"], "--storage none.zip: there is no such file"),
    ],
)
def test_a_side_that_is_not_there_is_one_line(capsys: Capture, arguments: list[str], why: str) -> None:
    assert main(["diff", *arguments]) == 2
    assert why in refused(capsys)


def test_a_real_grid_differs_in_nothing_from_itself(capsys: Capture) -> None:
    side = f"digits@{RECORDS}"
    assert main(["diff", side, side, "--fail-below", "0"]) == 0
    out = capsys.readouterr().out
    assert "None of 11 means fell by more than 0 points." in out
    assert "Nothing of what the grids ask for, nor of what their records say of where they ran." in out
    assert {line[4] for line in markdown_rows(out)[0][1:]} == {"+0.00"}
