"""Ray's token: made for a Ray that is started here, the user's own for one that is joined, and never one that others
can read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import launch
from grid.cluster import token
from grid.errors import UserError
from tests.conftest import tiny_grid
from tests.launching import write_grid


@pytest.fixture(autouse=True)
def none_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (token.MODE, token.TOKEN, token.TOKEN_FILE):
        monkeypatch.setenv(name, "")  # to have it as it was afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def write_token(path: Path, mode: int, *, above: int = 0o755) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text("secret")
    path.chmod(mode)
    path.parent.chmod(above)
    return path


@pytest.fixture
def open_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that others may look into, as most are; pytest's own folders are closed."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        monkeypatch.setenv("HOME", name)
        yield Path(name)


def test_a_ray_started_here_asks_for_a_token_that_nobody_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(token.MODE, "disabled")  # as earlier notes had it
    seen = set()
    for _ in range(3):
        monkeypatch.delenv(token.TOKEN, raising=False)
        token.ask_for()
        assert os.environ[token.MODE] == "token"
        seen.add(os.environ[token.TOKEN])
    assert len(seen) == 3
    assert {len(one) for one in seen} == {64}


def test_it_is_in_no_file(tmp_path: Path) -> None:
    token.ask_for()
    assert not (tmp_path / "home").exists()


def test_a_token_of_the_users_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(token.TOKEN, "mine")
    token.ask_for()
    assert os.environ[token.TOKEN] == "mine"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_token_file_that_others_can_read_is_refused(open_home: Path, mode: int) -> None:
    """As Ray itself makes it."""
    path = write_token(open_home / ".ray" / "auth_token", mode)
    with pytest.raises(UserError, match=rf"^Ray's token {path} can be read by others.*chmod 600"):
        token.check_file()
    path.chmod(0o600)
    token.check_file()


def test_so_is_one_at_another_place(open_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_token(open_home / "place" / "token", 0o644)
    token.check_file()
    monkeypatch.setenv(token.TOKEN_FILE, str(path))
    with pytest.raises(UserError, match=str(path)):
        token.check_file()


def test_a_file_in_a_closed_folder_cannot_be_read(open_home: Path) -> None:
    write_token(open_home / ".ray" / "auth_token", 0o644, above=0o700)
    token.check_file()


@pytest.mark.parametrize(("name", "value"), [("RAY_AUTH_TOKEN", "mine"), ("RAY_AUTH_MODE", "disabled")])
def test_a_file_that_is_not_used_is_not_looked_at(
    open_home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    write_token(open_home / ".ray" / "auth_token", 0o644)
    monkeypatch.setenv(name, value)
    token.check_file()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_launch_that_joins_a_ray_says_so_on_one_line(
    open_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    write_token(open_home / ".ray" / "auth_token", 0o644)
    grid = write_grid(tmp_path, tiny_grid())
    argv = ["--grid", grid, "--storage", str(tmp_path / "runs"), "--wandb", "disabled", "--address", address]
    assert launch.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "auth_token can be read by others" in line
