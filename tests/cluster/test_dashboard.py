"""Ray's dashboard: off unless asked for, and then where it was asked for. Ray itself is not started."""

from __future__ import annotations

import os
import socket
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import launch
from grid.cluster.session import Dashboard, session
from grid.cluster.token import login
from grid.errors import UserError
from tests.conftest import tiny_grid
from tests.launching import write_grid

Patch = pytest.MonkeyPatch


class Recorded:
    """Stands for ray.init, and starts nothing."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.token = ""

    def __call__(self, **settings: Any) -> None:
        self.settings, self.token = settings, os.environ["RAY_AUTH_TOKEN"]
        raise ConnectionError("not in this test")


@pytest.fixture
def init(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded()
    monkeypatch.setattr(ray, "init", recorded)
    return recorded


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.dashboard.optional_deps", types.ModuleType("optional_deps"))


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that another program listens at."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def free() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def dashboard_of(init: Recorded) -> dict[str, Any]:
    return {name: value for name, value in init.settings.items() if "dashboard" in name}


def bad_input(capsys: pytest.CaptureFixture[str], tmp_path: Path, *argv: str) -> str:
    grid = write_grid(tmp_path, tiny_grid())
    assert launch.main(["--grid", grid, "--storage", str(tmp_path / "runs"), "--wandb", "disabled", *argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_without_being_asked_ray_starts_no_dashboard(init: Recorded) -> None:
    with pytest.raises(UserError), session(None, cpus=1):
        pass
    assert dashboard_of(init) == {"include_dashboard": False}


def test_ray_is_told_where_the_dashboard_listens(init: Recorded) -> None:
    with pytest.raises(UserError), session(None, cpus=1, dashboard=Dashboard.at("[::1]:9000")):
        pass
    assert dashboard_of(init) == {"include_dashboard": True, "dashboard_host": "::1", "dashboard_port": 9000}


@pytest.mark.usefixtures("installed")
def test_a_launch_says_where_it_is(
    init: Recorded, free: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    grid = write_grid(tmp_path, tiny_grid())
    argv = ["--grid", grid, "--storage", str(tmp_path / "runs"), "--wandb", "disabled", "--dashboard", free]
    assert launch.main(argv) == 2
    assert f"Ray's dashboard, once Ray has started: http://{free}\n" in capfd.readouterr().out
    host, port = free.split(":")
    assert dashboard_of(init) == {"include_dashboard": True, "dashboard_host": host, "dashboard_port": int(port)}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("given", [None, "a-token-of-mine"])
def test_what_is_piped_does_not_hold_its_token(
    given: str | None, init: Recorded, free: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Patch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", given or "")
    grid = write_grid(tmp_path, tiny_grid())
    argv = ["--grid", grid, "--storage", str(tmp_path / "runs"), "--wandb", "disabled", "--dashboard", free]
    assert launch.main(argv) == 2
    said = "".join(capfd.readouterr())
    assert len(init.token) == (64 if given is None else len(given))
    assert init.token not in said
    assert ("It asks for the token in RAY_AUTH_TOKEN" if given else "set RAY_AUTH_TOKEN to one of yours") in said
    monkeypatch.setenv("RAY_AUTH_TOKEN", init.token)
    assert f"for this launch is {init.token}" in login(was_given=False, on_terminal=True)


def test_alone_it_listens_on_this_machine_only() -> None:
    assert launch.parser().parse_args(["--dashboard"]).dashboard == "localhost:8265"
    assert launch.parser().parse_args([]).dashboard is None


@pytest.mark.parametrize("text", ["localhost", "8265", ":8265", "localhost:", "localhost:x", "localhost:65536", "a:0"])
def test_an_address_that_is_none_is_one_line(text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert f"--dashboard {text}: expected HOST:PORT" in bad_input(capsys, tmp_path, "--dashboard", text)


def test_a_cluster_has_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = bad_input(capsys, tmp_path, "--address", "auto", "--dashboard")
    assert "--dashboard is for a Ray started here" in line


def test_where_it_is_not_installed_one_line_says_how(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ray.dashboard.optional_deps", raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp_cors", None)  # of those that come with it
    line = bad_input(capsys, tmp_path, "--dashboard")
    assert "pip install -e '.[dashboard]' -c constraints.txt" in line


@pytest.mark.usefixtures("installed")
def test_a_port_in_use_is_one_line(taken: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = bad_input(capsys, tmp_path, "--dashboard", taken)
    assert f"--dashboard {taken}: cannot listen there: Address already in use" in line
