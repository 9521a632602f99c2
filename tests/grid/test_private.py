"""Folders that nobody else may write to, whatever lies under their names already."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from grid.errors import UserError
from grid.private import (
    COMPILER_CACHES,
    RAY_PATH_BYTES,
    downloads_folder,
    machine_folder,
    private_folder,
    ray_folder,
    use_private_compiler_caches,
)
from tests.conftest import tiny_grid
from tests.launching import ROOT, write_grid

NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KD_GRID_CACHE", "RAY_TMPDIR", "XDG_CACHE_HOME", *COMPILER_CACHES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_folder_is_made_for_this_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert mode(private_folder(tmp_path / "a" / "b")) == 0o700
    finally:
        os.umask(before)


def test_what_others_could_read_is_closed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o755)
    assert mode(private_folder(tmp_path / "mine")) == 0o700
    assert private_folder(tmp_path / "mine") == tmp_path / "mine", "and found again"


@pytest.mark.parametrize("bits", [0o777, 0o1777, 0o770, 0o722])
def test_what_others_could_write_to_is_refused(tmp_path: Path, bits: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(bits)
    with pytest.raises(UserError, match=r"/open: others may write to it.*chmod 700.*KD_GRID_CACHE"):
        private_folder(folder)


def as_link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize("make", [as_link, Path.touch, os.mkfifo, lambda folder: folder.symlink_to("nowhere")])
def test_what_is_no_folder_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd")
    with pytest.raises(UserError, match=r"/odd: is a link or a file.*KD_GRID_CACHE"):
        private_folder(tmp_path / "odd")


@as_root
def test_what_somebody_else_has_made_beforehand_is_refused() -> None:
    """Under the very name that a launch uses."""
    folder = Path(tempfile.gettempdir()) / f"kd-grid-{os.getuid()}"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    for use in (machine_folder, ray_folder, use_private_compiler_caches):
        with pytest.raises(UserError, match=rf"{folder}: belongs to somebody else \(user {NOBODY}\)"):
            use()


def test_everything_of_a_machine_lies_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    monkeypatch.setenv("KD_GRID_CACHE", str(place))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    use_private_compiler_caches()
    used = [machine_folder(), downloads_folder(), *(Path(os.environ[name]) for name in COMPILER_CACHES)]
    assert all(folder.is_relative_to(place) for folder in used)
    assert mode(place) == 0o700


def test_downloads_outlive_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert downloads_folder() == tmp_path / "home" / ".cache" / "kd-grid"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert downloads_folder() == tmp_path / "caches" / "kd-grid"
    assert mode(downloads_folder()) == 0o700


def test_rays_sockets_get_a_path_that_is_short_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_GRID_CACHE", str(tmp_path / ("long" * 20)))
    found = ray_folder()
    assert len(os.fsencode(found)) <= RAY_PATH_BYTES
    assert mode(found.parent) == 0o700


def test_rays_own_place_is_used_where_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "scratch"))
    assert ray_folder().is_relative_to(tmp_path / "scratch")
    assert mode(ray_folder().parent) == 0o700


def test_a_compiler_cache_of_the_users_is_kept_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(mine))
    use_private_compiler_caches()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(mine)
    mine.chmod(0o777)
    with pytest.raises(UserError, match="others may write to it"):
        use_private_compiler_caches()


@pytest.mark.long
def test_a_dry_run_leaves_nothing_in_the_temporary_folder(tmp_path: Path) -> None:
    """Where torch would make a folder for what it compiles, under a name that anybody can guess."""
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "KD_GRID_CACHE": str(tmp_path / "own")}
    argv = ["launch.py", "--grid", write_grid(tmp_path, tiny_grid()), "--storage", str(tmp_path / "runs"), "--dry-run"]
    subprocess.run([sys.executable, *argv], cwd=ROOT, env=environment, check=True, capture_output=True)
    assert not [*(tmp_path / "tmp").iterdir()]
