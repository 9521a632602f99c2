"""Folders of this user's alone on this machine. Programs run what they find in their caches and session folders, so
that nobody else may write there, nor make such a folder beforehand under its known name."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from grid.errors import UserError

PLACE = "KD_GRID_CACHE"
TEMPORARY = "/tmp"  # noqa: S108 (what is made there is checked)
# Of the 107 bytes that the path of a socket may have, what Ray puts below its folder takes some 70.
RAY_PATH_BYTES = 36

OWN_RAY = ".ray-of-launches"  # lies beside the folder of such a Ray

# What torch and Triton compile: both run what they find there.
COMPILER_CACHES = {"TORCHINDUCTOR_CACHE_DIR": "torchinductor", "TRITON_CACHE_DIR": "triton"}

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_folder(folder: Path) -> Path:
    """The folder, made where it is missing, open to this user alone. Raises UserError for one that somebody else owns
    or may write to."""
    folder = folder.expanduser().absolute()
    way_out = f"; give a folder of yours in {PLACE}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror}{way_out}") from None
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UserError(f"{folder}: is a link or a file, where a folder of yours is expected: remove it{way_out}")
    if found.st_uid != os.getuid():
        raise UserError(f"{folder}: belongs to somebody else (user {found.st_uid}){way_out}")
    if found.st_mode & OTHERS_WRITE:
        raise UserError(
            f"{folder}: others may write to it, and what lies there would be run: remove it if it holds nothing of "
            f"yours, or chmod 700 it{way_out}"
        )
    if found.st_mode & OTHERS:
        folder.chmod(0o700)
    return folder


def machine_folder() -> Path:
    """Where everything lies that belongs to one machine and may be deleted whenever no grid runs: KD_GRID_CACHE, or a
    folder in the temporary one. Raises as `private_folder`."""
    place = os.environ.get(PLACE)
    return private_folder(Path(place) if place else _temporary(tempfile.gettempdir()))


def downloads_folder() -> Path:
    """Where all is kept that took long to fetch: below KD_GRID_CACHE, or kd-grid in XDG_CACHE_HOME or ~/.cache, which
    outlive the temporary folder. Raises as `private_folder`."""
    if os.environ.get(PLACE):
        return private_folder(machine_folder() / "downloads")
    return private_folder(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "kd-grid")


def ray_folder() -> Path:
    """Where a Ray started here keeps its sessions: within a private folder, for Ray opens to all what it makes. It lies
    in RAY_TMPDIR if that is given, or else in the machine's folder, or where that path is too long for sockets in /tmp.
    Raises as `private_folder`."""
    given = os.environ.get("RAY_TMPDIR")
    root = private_folder(_temporary(given)) if given else machine_folder()
    if not given and len(os.fsencode(root / "ray")) > RAY_PATH_BYTES:
        root = private_folder(_temporary(TEMPORARY))
    (root / OWN_RAY).touch(mode=0o600)
    return root / "ray"


def is_of_a_launch(folder: Path) -> bool:
    """Whether a Ray that keeps its sessions in this folder belongs to a launch, or to somebody whose folders are closed
    to this user."""
    try:
        (folder.parent / OWN_RAY).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        pass
    return True


def use_private_compiler_caches() -> None:
    """Have torch and Triton keep what they compile in the machine's folder; where the user has named another place,
    that one is checked. Raises as `private_folder`."""
    for variable, name in COMPILER_CACHES.items():
        given = os.environ.get(variable)
        os.environ[variable] = str(private_folder(Path(given) if given else machine_folder() / name))


def _temporary(folder: str) -> Path:
    return Path(folder) / f"kd-grid-{os.getuid()}"
