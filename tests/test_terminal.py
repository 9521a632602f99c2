"""What a launch says keeps its own styles, and sends nothing that the shown texts would have the terminal do."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

import launch
from grid.cluster.remote import _show
from grid.contract.text import is_hidden

EVIL = "\x1b]0;owned\x07\x1b[2Ja\u202eb\r\x9b31m"
SHOWN = r"\x1b]0;owned"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> tuple[Terminal, Console]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    file = Terminal()
    return file, launch.console_on(file)


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
    launch.console_on(file).print(f"ViT {EVIL}", markup=False, highlight=False)
    assert SHOWN in file.getvalue()
    assert [character for character in file.getvalue() if is_hidden(character)] == ["\n"]


def test_what_a_cluster_says_is_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    _show(f"one\t{EVIL}\ntwo\n", sys.stdout)
    told = capsys.readouterr().out
    assert told.endswith("\\x9b31m\ntwo\n")
    assert told.startswith("one\t\\x1b]0;owned\\x07")
