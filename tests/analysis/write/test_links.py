"""What a command writes into a storage goes through no link that somebody may have put there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.cli import main
from analysis.tracking.export import Exporter
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.test_cli import refused
from tests.analysis.test_refusals import finish

Maker = Callable[..., SyntheticGrid]
Capture = pytest.CaptureFixture[str]

STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a stranger's link")


@pytest.fixture
def grid(make_grid: Maker) -> SyntheticGrid:
    made = make_grid(seeds=[0, 1])
    for row in made.rows:
        finish(made, row)
    return made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/keys").write_text("the user's own")
    return tmp_path / "home"


def link(place: Path, target: Path, *, mine: bool = False) -> None:
    place.symlink_to(target)
    if not mine:
        os.chown(place, STRANGER, STRANGER, follow_symlinks=False)


@pytest.mark.parametrize(("command", "file"), [("report", "report.html"), ("plots", "plots/captions.md")])
def test_a_link_in_the_place_of_what_is_written_is_replaced(
    grid: SyntheticGrid, home: Path, command: str, file: str
) -> None:
    place = grid.root / "grids/tiny" / file
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(home / "keys")
    assert main([command, "tiny", "--storage", grid.storage]) == 0
    assert (home / "keys").read_text() == "the user's own"
    assert not place.is_symlink()
    assert place.stat().st_size > 100


@as_root
@pytest.mark.parametrize(("command", "folder"), [("report", "grids/tiny"), ("plots", "grids/tiny/plots")])
def test_a_strangers_link_in_the_place_of_a_folder_is_refused(
    grid: SyntheticGrid, home: Path, capsys: Capture, command: str, folder: str
) -> None:
    place = grid.root / folder
    if place.exists():
        place.rename(home / "tiny")
        link(place, home / "tiny")
    else:
        link(place, home)
    before = sorted(home.rglob("*"))
    assert main([command, "tiny", "--storage", grid.storage]) == 2
    assert f"{place} is a link that user {STRANGER} made, which is not followed: replace it by" in refused(capsys)
    assert sorted(home.rglob("*")) == before


def test_a_folder_of_ones_own_elsewhere_is_written_to(grid: SyntheticGrid, home: Path) -> None:
    (grid.root / "grids/tiny").rename(home / "tiny")
    link(grid.root / "grids/tiny", home / "tiny", mine=True)
    assert main(["report", "tiny", "--storage", grid.storage]) == 0
    assert (home / "tiny/report.html").stat().st_size > 100


@pytest.mark.parametrize("command", ["report", "table"])
def test_output_follows_a_link_of_ones_own(grid: SyntheticGrid, home: Path, command: str) -> None:
    link(home / "out.html", home / "keys", mine=True)
    assert main([command, "tiny", "--storage", grid.storage, "--output", str(home / "out.html")]) == 0
    assert (home / "keys").stat().st_size > 100
    assert main([command, "tiny", "--storage", grid.storage, "--output", "/dev/null", *formats(command)]) == 0


def formats(command: str) -> list[str]:
    return ["--format", "md"] if command == "table" else []


@as_root
@pytest.mark.parametrize("command", ["report", "table"])
def test_output_follows_no_strangers_link(grid: SyntheticGrid, home: Path, capsys: Capture, command: str) -> None:
    link(home / "out.html", home / "keys")
    assert main([command, "tiny", "--storage", grid.storage, "--output", str(home / "out.html")]) == 2
    assert f"--output {home}/out.html: it is a link that user {STRANGER} made" in refused(capsys)
    assert (home / "keys").read_text() == "the user's own"


@as_root
@pytest.mark.parametrize("strangers", [True, False])
def test_what_is_uploaded_is_noted_through_no_link(
    grid: SyntheticGrid, home: Path, monkeypatch: pytest.MonkeyPatch, strangers: bool
) -> None:
    monkeypatch.setattr("analysis.tracking.export.write_run", lambda *args, **about: None)
    warnings: list[str] = []
    link(grid.root / "grids/tiny/wandb", home, mine=not strangers)
    (home / "written.jsonl").symlink_to(home / "keys")
    (home / "keys").write_text("")
    with Exporter(grid.storage, "tiny", mode="offline", warn=warnings.append) as exporter:
        exporter.add_all()
    assert (home / "keys").read_text() == ""
    assert len(warnings) == 1, "it is no file that grows, whoever made the link"
