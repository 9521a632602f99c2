"""Which program this is: where its parts lie, and what its records call it."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES, MODULES = ("analysis", "grid", "kd"), ("launch",)
WORKERS_RUN = ("grid", "kd")
SUFFIXES = (".py", ".yaml", ".css", ".js")

_OWN = Path(__file__).parents[2]


@cache
def parts() -> dict[str, Path]:
    """The folder of each of this program's packages, and the file of its module, by name. They lie beside each other in
    a checkout and where a wheel is installed, but Ray gives each of those that it ships a folder of its own.

    Raises ModuleNotFoundError for one that is nowhere.
    """
    return {name: _place(name) for name in (*PACKAGES, *MODULES)}


def _place(name: str) -> Path:
    # Beside the package that runs, first: elsewhere on the path there may be somebody else's of that name.
    beside = _OWN.parent / name if name in PACKAGES else _OWN.parent / f"{name}.py"
    if (beside / "__init__.py").is_file() or beside.is_file():
        return beside
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"this program's {name} is not where the rest of it is, {_OWN.parent}", name=name)
    return Path(found.origin).parent if name in PACKAGES else Path(found.origin)


def content_hash(names: Iterable[str] = (*PACKAGES, *MODULES)) -> str:
    """Of the files of these parts, wherever they lie."""
    digest = hashlib.sha256()
    for name in sorted(names):
        place = parts()[name]
        files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.suffix in SUFFIXES)
        for file in files:
            digest.update(f"{name}/{file.relative_to(place).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


@cache
def code_version() -> str:
    """The installed version with what tells it from others of that number: the commit where git keeps this very file
    ('+' marks uncommitted changes), or else a hash of the program's files."""
    try:
        version = metadata.version("kd-grid")
    except metadata.PackageNotFoundError:
        version = "unknown"
    return f"{version} ({_commit() or f'sha256 {content_hash()}'})"


def _commit() -> str | None:
    """None where no repository tracks this file: one around the environment that it is installed in is the user's."""
    try:
        _git("ls-files", "--error-unmatch", "--", Path(__file__).name)
        return _git("describe", "--always", "--dirty=+", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    # A repository's configuration may name a program to run at each look at its files.
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(Path(__file__).parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
