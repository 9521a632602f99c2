"""What a terminal's encoding does not have is spelled so that nothing looks like something else."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from analysis.cli import main
from analysis.write.markdown import display_width
from tests.analysis.conftest import ROOT, SyntheticGrid
from tests.analysis.reading import markdown_rows

Maker = Callable[..., SyntheticGrid]
Teller = Callable[..., str]

C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def grid(make_grid: Maker) -> SyntheticGrid:
    """A student that clearly gains, one that clearly loses, and one that is below its baseline, but not clearly."""
    return make_grid("tiny", students=("Élève", "Êlève", "ResNet-S")).fill(
        {
            "ViT-T": 90.0,
            ("Élève", None): [80.0, 80.5, 81.0],
            ("Élève", "ViT-T"): [85.0, 85.5, 86.1],
            ("Êlève", None): [80.0, 80.5, 81.0],
            ("Êlève", "ViT-T"): [75.0, 75.5, 76.1],
            ("ResNet-S", None): [80.0, 80.0, 80.0],
            ("ResNet-S", "ViT-T"): [78.0, 79.0, 81.0],
        }
    )


@pytest.fixture
def told(grid: SyntheticGrid, monkeypatch: pytest.MonkeyPatch) -> Teller:
    """What a command writes to a stdout of some encoding: told("ascii", "table")."""

    def run(encoding: str, *arguments: str) -> str:
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", stream := io.TextIOWrapper(written, encoding=encoding))
        assert main([*arguments, "--storage", grid.storage]) == 0
        stream.flush()
        return written.getvalue().decode(encoding)

    return run


@pytest.mark.parametrize(("encoding", "label"), [("ascii", r"\xc9l\xe8ve"), ("latin-1", "Élève"), ("utf-8", "Élève")])
def test_a_gain_and_a_loss_look_different_and_so_do_labels(told: Teller, encoding: str, label: str) -> None:
    text = told(encoding, "table")
    assert "?" not in text
    header, *rows = markdown_rows(text)[0]
    gain, student = (header.index(name) for name in ("Gain", "Student (params)"))
    marks = ["▲", "▼", "▽"] if encoding == "utf-8" else ["(+)", "(-)", "(v)"]
    assert [row[gain].rpartition(" ")[2] for row in rows] == marks
    assert rows[0][student].startswith(label)
    assert len({row[student] for row in rows}) == 3
    for mark, words in zip(marks, ("significant gain", "significant loss", "below"), strict=True):
        assert f"{mark} {words}" in text
    lines = [line for line in text.split("\n\n")[1].splitlines() if line.startswith("|")]
    assert len({display_width(line) for line in lines}) == 1, "the columns are aligned"


def test_the_locale_decides_where_nothing_else_does(grid: SyntheticGrid, told: Teller) -> None:
    command = [sys.executable, "-m", "analysis", "table", "--storage", grid.storage]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **C_LOCALE}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == told("ascii", "table")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_data_says_the_same_in_every_encoding(told: Teller, encoding: str) -> None:
    here, elsewhere = (json.loads(told(there, "records", "--format", "json")) for there in (encoding, "utf-8"))
    assert here == elsewhere
    assert "Élève" in {row["student"] for row in here}


def test_a_page_in_ascii_shows_the_same_text(told: Teller) -> None:
    page = told("ascii", "table", "--format", "html")
    assert "&#201;l&#232;ve" in page
    assert "&#9650; significant gain" in page
