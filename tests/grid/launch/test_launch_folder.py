"""What a launch leaves on its machine goes with it, or with the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grid.launch.launch_folder import KEPT, KEPT_SECONDS, MAKING_SECONDS, LaunchFolder, launch_folder
from grid.private import PLACE
from tests.launching import ROOT


@pytest.fixture(autouse=True)
def launches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the folders lie."""
    monkeypatch.setenv(PLACE, str(tmp_path / "own"))
    return tmp_path / "own" / "launches"


def session_of(folder: LaunchFolder, tmp_path: Path) -> Path:
    session = tmp_path / f"session_{folder.path.name}"
    (session / "logs").mkdir(parents=True)
    (tmp_path / "session_latest").unlink(missing_ok=True)
    (tmp_path / "session_latest").symlink_to(session)
    folder.owns_session(session)
    return session


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_launch_takes_its_folder_and_its_session_with_it(launches: Path, tmp_path: Path) -> None:
    with launch_folder("a") as folder:
        session = session_of(folder, tmp_path)
        assert folder.ray.is_dir()
        assert names(launches) == ["a"]
        assert (folder.path.stat().st_mode & 0o777) == 0o700
    assert names(launches) == []
    assert not session.exists()
    assert not (tmp_path / "session_latest").is_symlink()


def test_what_a_killed_launch_left_goes_with_the_next(launches: Path, tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from grid.launch.launch_folder import launch_folder
with launch_folder("killed") as folder:
    folder.owns_session(Path(sys.argv[1]))
    os.kill(os.getpid(), 9)
"""
    session = tmp_path / "session_killed"
    session.mkdir()
    subprocess.run([sys.executable, "-c", script, str(session)], cwd=ROOT, check=False)
    assert names(launches) == ["killed"]
    with launch_folder("next"):
        assert names(launches) == ["next"]
    assert not session.exists()


def test_a_launch_that_lives_is_left_alone(launches: Path, tmp_path: Path) -> None:
    with launch_folder("first") as first:
        session = session_of(first, tmp_path)
        with launch_folder("second"):
            assert names(launches) == ["first", "second"]
        assert session.is_dir()
        assert names(launches) == ["first"]


def test_after_a_failure_rays_logs_stay_for_a_day(launches: Path, tmp_path: Path) -> None:
    with launch_folder("failed") as folder:
        session = session_of(folder, tmp_path)
        folder.keep_session()
    with launch_folder("next"):
        assert session.is_dir()
    past = time.time() - KEPT_SECONDS - 1
    os.utime(launches / "failed" / KEPT, (past, past))
    with launch_folder("next"):
        assert not session.exists()
    assert names(launches) == []


def test_after_an_exception_nothing_is_taken_from_under_ray(launches: Path, tmp_path: Path) -> None:
    sessions: list[Path] = []

    def interrupted() -> None:
        with launch_folder("interrupted") as folder:
            sessions.append(session_of(folder, tmp_path))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (session,) = sessions
    assert session.is_dir()
    with launch_folder("next"):
        assert not session.exists()


def test_one_that_is_being_made_is_left_for_an_hour(launches: Path) -> None:
    with launch_folder("a"):
        making = launches / ".b"
        making.mkdir()
        with launch_folder("c"):
            assert making.is_dir()
        past = time.time() - MAKING_SECONDS - 1
        os.utime(making, (past, past))
        with launch_folder("d"):
            assert not making.exists()


def test_nothing_but_a_session_is_removed(launches: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    with launch_folder("a") as folder:
        folder.owns_session(kept)
    assert kept.is_dir()
    assert names(launches) == []
