"""A user's own model code: found where the grid is launched, carried in the spec, and imported from there by every
worker, whatever its disk holds."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from grid.errors import UserError, one_line
from grid.spec.model import ModelSpec

# More than this belongs into an installed package.
MAX_BYTES = 2_000_000

OURS = {"analysis", "grid", "kd", "launch"}


def find_code(factory: str) -> dict[str, str] | None:
    """The Python files a factory needs, by path: its file, or the top-level module or package it is in. None for what
    is installed as a package: that has to be installed on every node.

    Raises UserError where there is none.
    """
    place = factory.rpartition(":")[0]
    if place.endswith(".py"):
        path = Path(place).expanduser()
        if not path.is_file():
            raise UserError(f"factory {factory}: no such file: {path.absolute()}")
        if path.stem in OURS or _is_installed(_find_spec(path.stem)):
            raise UserError(f"factory {factory}: the file would hide the installed module {path.stem!r}: rename it")
        return {path.name: _text(path, factory)}
    top = place.partition(".")[0]
    found = importlib.machinery.PathFinder.find_spec(top, [str(Path.cwd())]) or _find_spec(top)
    if top in OURS or _is_installed(found):
        return None
    if found is None or found.origin is None:
        raise UserError(
            f"factory {factory}: there is no module {top!r} in this folder or among the installed packages; "
            "a file is given by its path, FILE.py:FUNCTION"
        )
    origin = Path(found.origin)
    if not found.submodule_search_locations:
        return {origin.name: _text(origin, factory)}
    files = sorted(origin.parent.rglob("*.py"))
    if sum(file.stat().st_size for file in files) > MAX_BYTES:
        raise UserError(f"factory {factory}: package {origin.parent} is too large to carry: install it on every node")
    return {file.relative_to(origin.parent.parent).as_posix(): _text(file, factory) for file in files}


def load_factory(model: ModelSpec) -> Callable[..., Any]:
    """The callable. Raises UserError where its code fails, or does not have it."""
    assert model.factory is not None
    place, _, function = model.factory.rpartition(":")
    try:
        module = _import(place, model.code)
    except Exception as error:  # a user's module may raise anything
        raise UserError(f"factory {model.factory}: its code cannot be imported: {one_line(error)}") from error
    factory = getattr(module, function, None)
    if not callable(factory):
        raise UserError(f"factory {model.factory}: the module has no function {function!r}")
    found: Callable[..., Any] = factory
    return found


def _import(place: str, code: Mapping[str, str] | None) -> ModuleType:
    name = Path(place.replace("\\", "/")).stem if place.endswith(".py") else place
    if code is None:
        return importlib.import_module(name)
    top = name.partition(".")[0]
    current = next((finder for finder in sys.meta_path if isinstance(finder, _Carried) and finder.top == top), None)
    if current is None or current.code != code:
        if current is not None:
            sys.meta_path.remove(current)
        for loaded in [known for known in sys.modules if known == top or known.startswith(f"{top}.")]:
            del sys.modules[loaded]
        # First, so that no other version on this machine takes its place.
        sys.meta_path.insert(0, _Carried(top, code))
    return importlib.import_module(name)


class _Carried(importlib.abc.SourceLoader):
    """Imports one top-level module or package from texts."""

    def __init__(self, top: str, code: Mapping[str, str]) -> None:
        self.top, self.code = top, code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != self.top or self._file(fullname) is None:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def is_package(self, fullname: str) -> bool:
        return str(self._file(fullname)).endswith("/__init__.py")

    def get_filename(self, fullname: str) -> str:
        file = self._file(fullname)
        if file is None:
            raise ImportError(f"no module {fullname!r} in the code that came with the grid")
        return file

    def get_data(self, path: str | bytes) -> bytes:
        return self.code[str(path)].encode()

    def _file(self, fullname: str) -> str | None:
        base = fullname.replace(".", "/")
        return next((file for file in (f"{base}/__init__.py", f"{base}.py") if file in self.code), None)


def _find_spec(top: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


def _is_installed(found: importlib.machinery.ModuleSpec | None) -> bool:
    if found is None or found.origin is None:
        return False
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib")}
    return found.origin in ("built-in", "frozen") or bool(installed & {*Path(found.origin).resolve().parents})


def _text(path: Path, factory: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"factory {factory}: {path}: cannot be read: {error}") from None
