"""What a launch says keeps its own styles, and sends nothing that the shown texts would have the terminal do."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from grid.cluster.remote import _show
from grid.contract.terminal import tell
from grid.contract.text import is_hidden
from grid.watch.console import console_on

ROOT = Path(__file__).parents[1]

EVIL = "\x1b]0;owned\x07\x1b[2Ja\u202eb\r\x9b31m"
RECORDS = str(ROOT / "tests/analysis/digits_records")
SHOWN = r"\x1b]0;owned"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> tuple[Terminal, Console]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    file = Terminal()
    return file, console_on(file)


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [["launch.py", "--list"], ["launch.py", "--grid", "digits", "--dry-run"], ["-m", "analysis", "table"]],
    ids=["list", "dry run", "table"],
)
def test_a_full_disk_behind_stdout_is_a_line(command: list[str], tmp_path: Path) -> None:
    storage = {"--list": [], "--dry-run": ["--storage", str(tmp_path)]}.get(command[-1], ["--storage", RECORDS])
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, *command, *storage], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (2, "error: stdout: No space left on device\n")


def test_lines_that_a_closed_terminal_does_not_take_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", buffering=1) as file:
        console = console_on(file)
        console.print("a line")
        os.close(master)
        for _ in range(3):
            console.print("a line that nobody reads")
        tell("another", file)


def test_a_launch_whose_terminal_was_closed_says_the_rest_to_nobody(tmp_path: Path) -> None:
    """What the terminal did not take is still in a buffer when its output is given back."""
    script = (
        "import os, sys; from grid.cluster.session import output_to\n"
        "from grid.contract.terminal import tell; from grid.watch.console import console_on\n"
        "with output_to(sys.argv[1], 'launch.log') as terminal:\n"
        "    sys.stdin.readline()\n"
        "    console_on(terminal).print('a line that nobody reads')\n"
        "tell('another')\n"
        "open(sys.argv[1] + '/ended', 'w').close()\n"
    )
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=slave,
        stderr=subprocess.PIPE,
    )
    os.close(slave)
    os.close(master)
    _, err = process.communicate(b"\n", timeout=120)
    assert (process.returncode, err) == (0, b"")
    assert (tmp_path / "ended").exists()


def test_styles_of_ours_reach_a_terminal_and_those_of_a_text_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    file, console = on_terminal(monkeypatch)
    console.print(f"[red]{escape(EVIL)}[/]", highlight=False)
    assert "\x1b[31m" in file.getvalue()
    assert SHOWN in file.getvalue()
    for bad in ("\x1b]", "\x1b[2J", "\x07", "\u202e", "\r", "\x9b"):
        assert bad not in file.getvalue()


def test_tables_and_what_is_shown_anew_are_cleaned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    file, console = on_terminal(monkeypatch)
    table = Table("Model")
    table.add_row(escape(EVIL))
    console.print(table)
    with Live(console=console, auto_refresh=False) as live:
        live.update(Text(EVIL), refresh=True)
    assert file.getvalue().count(SHOWN) >= 2
    for bad in ("\x1b]", "\x07", "\u202e", "\x9b"):
        assert bad not in file.getvalue()
    assert "\x1b[" in file.getvalue(), "rich moves the cursor itself"


def test_what_is_piped_is_cleaned() -> None:
    file = io.StringIO()
    console_on(file).print(f"ViT {EVIL}", markup=False, highlight=False)
    assert SHOWN in file.getvalue()
    assert [character for character in file.getvalue() if is_hidden(character)] == ["\n"]


def test_what_a_cluster_says_is_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    _show(f"one\t{EVIL}\ntwo\n", sys.stdout)
    told = capsys.readouterr().out
    assert told.endswith("\\x9b31m\ntwo\n")
    assert told.startswith("one\t\\x1b]0;owned\\x07")


ODD = {
    "by PYTHONIOENCODING": {"PYTHONIOENCODING": "ascii"},
    "by the locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}

LAUNCH = """
import os, sys
from grid.cluster.session import output_to
from grid.contract.terminal import tell
from grid.watch.console import console_on
from rich.table import Table

with output_to(sys.argv[1], "launch.log") as terminal:
    console = console_on(terminal)
    os.write(1, b"a library's words")
    console.print("[2/9] \\u00c9l\\u00e8ve: done \\u2192 next", markup=False, highlight=False)
    table = Table("Model", "Size", box=None)
    table.add_row("\\u00c9l\\u00e8ve", "1")
    table.add_row("ResNet", "2")
    console.print(table)
tell("gain \\u25b2, loss \\u25bc")
"""


@pytest.mark.parametrize("how", ODD)
@pytest.mark.parametrize("on_terminal", [False, True], ids=["piped", "on a terminal"])
def test_no_line_of_a_launch_is_lost_where_its_terminal_has_ascii_alone(
    tmp_path: Path, how: str, on_terminal: bool
) -> None:
    ours, theirs = pty.openpty() if on_terminal else os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "80", **ODD[how]},
        stdout=theirs,
        stderr=subprocess.PIPE,
        check=False,
    )
    told = os.read(ours, 10_000).decode("ascii").splitlines()
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, b"")
    assert told[0].rstrip() == r"[2/9] \xc9l\xe8ve: done -> next"
    assert [line.rstrip() for line in told[2:4]] == [r" \xc9l\xe8ve  1", " ResNet       2"]
    assert told[-1] == "gain (+), loss (-)"
    assert (tmp_path / "launch.log").read_text() == "a library's words"


def test_a_name_with_colons_is_no_emoji() -> None:
    file = io.StringIO()
    console_on(file).print("results in /data/:x:/runs", markup=False, highlight=False)
    assert file.getvalue() == "results in /data/:x:/runs\n"


def test_what_a_cluster_says_is_in_the_streams_encoding() -> None:
    written = io.BytesIO()
    ascii_only = io.TextIOWrapper(written, encoding="ascii")
    _show("\u25b2 \u00c9l\u00e8ve\n", ascii_only)
    assert written.getvalue() == b"(+) \\xc9l\\xe8ve\n"
