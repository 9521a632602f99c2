"""A launch's own folder on its machine, for what Ray and Tune write: it goes with the launch. What launches that were
killed have left goes with the next one."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from grid.private import machine_folder, private_folder

log = logging.getLogger("kd_grid")

LOCK, SESSION, KEPT = "lock", "session", "kept"
KEPT_SECONDS = 24 * 3600.0  # the logs of a Ray under which something failed
MAKING_SECONDS = 3600.0


class LaunchFolder:
    """ray: for Ray Train and Tune to write to."""

    def __init__(self, path: Path) -> None:
        self.path, self.ray = path, path / "ray"

    def owns_session(self, session: Path) -> None:
        """Ray's session folder is this launch's own, and goes with it."""
        (self.path / SESSION).write_text(str(session), encoding="utf-8")

    def keep_session(self) -> None:
        """Somebody may want to read Ray's logs: they stay for a day."""
        (self.path / KEPT).touch()


@contextlib.contextmanager
def launch_folder(launch: str) -> Iterator[LaunchFolder]:
    """The folder of this name for as long as the context lasts. It stays after an exception, under which Ray may not
    have ended: the next launch removes it. Raises UserError as `machine_folder`, and OSError."""
    root = private_folder(machine_folder() / "launches")
    _clear(root)
    making, path = root / f".{launch}", root / launch
    making.mkdir(mode=0o700)
    with open(making / LOCK, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # before anybody else sees it, and kept past the rename
        (making / "ray").mkdir()
        making.rename(path)
        yield LaunchFolder(path)
        if not (path / KEPT).exists():
            _remove(path)


def _clear(root: Path) -> None:
    """Remove what no living launch holds."""
    for path in root.iterdir():
        if path.name.startswith(".") and _is_younger(path, MAKING_SECONDS):
            continue  # it is being made
        try:
            with open(path / LOCK, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_younger(path / KEPT, KEPT_SECONDS):
                    _remove(path)
        except BlockingIOError:
            pass  # it lives
        except FileNotFoundError:  # killed before it had its lock
            _remove(path)
        except OSError as error:
            log.warning("%s: cannot be looked at: %s", path, error.strerror)


def _is_younger(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.stat().st_mtime < seconds
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        session = Path((path / SESSION).read_text(encoding="utf-8"))
        if session.is_absolute() and session.name.startswith("session_"):
            shutil.rmtree(session, ignore_errors=True)
            latest = session.with_name("session_latest")
            if latest.is_symlink() and not latest.exists():
                latest.unlink()
    shutil.rmtree(path, ignore_errors=True)
