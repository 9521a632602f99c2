"""Whoever may write to a storage writes what a terminal shows: nothing of it reaches the terminal as a command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import launch
from analysis.cli import main
from grid.contract.text import is_hidden
from grid.spec.published import PublishedModel, PublishedPair, PublishedStudy
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.test_refusals import Runs, call, finish, runs

__all__ = ["runs"]

Maker = Callable[..., SyntheticGrid]
Capture = pytest.CaptureFixture[str]

EVIL = "\x1b]0;owned\x07\x1b[2J\u202egnp\r\x9b31m\x7f\u2028\U000e0041"
TEXTS = ("table", "compare", "classes", "records", "curves", "plots", "report", "wandb", "export", "bundle")


@pytest.fixture
def hostile(make_grid: Maker, runs: Runs) -> SyntheticGrid:
    """Everything on it that is text holds what no text should: labels, errors, devices, the plan, a broken record."""
    teacher, student = f"T{EVIL}", f"S{EVIL}"
    made = make_grid(teachers=[teacher], students=[student], seeds=[0, 1, 2], dataset=f"digits{EVIL}")
    published = PublishedStudy.model_construct(
        study=f"study{EVIL}",
        protocol=f"best{EVIL}",
        models=(PublishedModel.model_construct(model=student, mode="baseline", accuracy=70.0, parameters=1000),),
        pairs=(PublishedPair.model_construct(teacher=teacher, student=student, baseline=70.0, distilled=72.0),),
    ).model_dump(mode="json")
    made.write_plan(spec={**made.plan["spec"], "description": f"about{EVIL}", "published": published})
    rows = made.rows
    for row in rows[:-2]:
        finish(made, row)
    made.fail(rows[-2], f"ValueError: {EVIL}")
    made.write(f"{made.folder(rows[-1])}/record.json", f'{{"schema_version": "{EVIL}"'.encode())
    made.write(f"grids/other{EVIL.replace('/', '')}/plan.json", f"no plan {EVIL}".encode())
    return made


def assert_harmless(text: str, *, what: str = "") -> None:
    hidden = [character for character in text if is_hidden(character) and character not in "\n\t"]
    assert not hidden, (what, hidden[:5])


@pytest.mark.parametrize("command", TEXTS)
def test_no_command_sends_a_terminal_what_the_storage_says(
    command: str, hostile: SyntheticGrid, capfd: pytest.CaptureFixture[str]
) -> None:
    call(command, hostile.root)
    call(command, hostile.root, f"no such{EVIL}")
    told = capfd.readouterr()
    assert told.out + told.err
    assert_harmless(told.out + told.err, what=command)


def test_two_that_differ_in_what_they_say_send_nothing_either(hostile: SyntheticGrid, capsys: Capture) -> None:
    other = hostile.root.with_name("other")
    shutil.copytree(hostile.root, other)
    spec = {**hostile.plan["spec"], "dataset": {"name": f"more{EVIL}", EVIL: EVIL}}
    (other / "grids/tiny/plan.json").write_text(json.dumps({**hostile.plan, "spec": spec}), encoding="utf-8")
    assert main(["diff", f"tiny@{hostile.root}", f"tiny@{other}"]) == 0
    told = capsys.readouterr()
    assert "dataset.name" in told.out
    assert_harmless(told.out + told.err)


@pytest.mark.parametrize("how", ["md", "html", "latex", "csv", "json"])
def test_no_format_sends_it(how: str, hostile: SyntheticGrid, capsys: Capture) -> None:
    for command in ("table", "records"):
        assert main([command, "tiny", "--storage", str(hostile.root), "--format", how]) == 0
        told = capsys.readouterr()
        assert "S" in told.out
        assert_harmless(told.out + told.err, what=how)
        if how == "json":
            assert any(f"S{EVIL}" in row.values() for row in json.loads(told.out)), "JSON says the same in other words"


def test_all_grids_in_one_table_say_nothing_more(hostile: SyntheticGrid, capsys: Capture) -> None:
    assert main(["table", "--all", "--storage", str(hostile.root)]) == 0
    told = capsys.readouterr()
    assert "owned" in told.out
    assert_harmless(told.out + told.err)


@pytest.mark.long
def test_pages_papers_and_pictures_hold_none_of_it(
    hostile: SyntheticGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # of the pictures that are a pixel each
    monkeypatch.chdir(tmp_path)
    for name in ("table.md", "table.html", "table.tex"):
        assert main(["table", "tiny", "--storage", str(hostile.root), "--output", name]) == 0
    assert main(["report", "tiny", "--storage", str(hostile.root), "--output", "report.html"]) == 0
    assert main(["plots", "tiny", "--storage", str(hostile.root), "--output", "plots"]) == 0
    files = [*tmp_path.glob("table.*"), tmp_path / "report.html", *(tmp_path / "plots").glob("*.svg")]
    assert len(files) > 6
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert_harmless(text, what=file.name)
    assert "owned" in (tmp_path / "table.tex").read_text(encoding="utf-8")


@pytest.mark.parametrize("more", [["tiny"], [], ["--watch"], [f"no{EVIL}"]])
def test_the_status_sends_none_of_it(
    more: list[str], hostile: SyntheticGrid, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("grid.watch.show_status.time.sleep", leave)
    launch.main(["--status", *more, "--storage", str(hostile.root)])
    told = capsys.readouterr()
    assert "owned" in told.out + told.err
    assert_harmless(told.out + told.err)


def test_the_control_what_is_told_is_otherwise_as_it_was_written(
    make_grid: Maker, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_grid(students=["学生 é"], teachers=["T"])
    rows: list[dict[str, Any]] = made.rows
    for row in rows:
        finish(made, row)
    assert main(["table", "--storage", str(made.root)]) == 0
    assert "学生 é" in capsys.readouterr().out
    monkeypatch.setattr("grid.contract.terminal.shown_on", lambda stream, text: text)
    made.fail(rows[-1], "\x1b[2J")
    (made.root / made.folder(rows[-1]) / "record.json").unlink()
    assert main(["records", "--storage", str(made.root)]) == 0
    assert "\x1b" in capsys.readouterr().out, "without the rule it does reach the terminal"
