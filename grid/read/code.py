"""A user's own model code: found where the grid is launched, carried in the spec, and imported from there by every
worker, whatever its disk holds."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from grid.errors import UserError, check_path, one_line
from grid.spec.model import ModelSpec

# It is part of every stage that uses the model: more than this belongs into an installed package.
MAX_BYTES = 100_000

# Before the paths of what is carried, so that files beside it are not found where they happen to lie.
CARRIED = "<carried>/"

OURS = {"analysis", "grid", "kd", "launch"}


def find_code(factory: str) -> dict[str, str] | None:
    """The Python files a factory needs, by path: its file, or the top-level module or package it is in. None for what
    is installed as a package: that has to be installed on every node.

    Raises UserError where there is none.
    """
    place = factory.rpartition(":")[0]
    check_path("factory", place)
    if place.endswith(".py"):
        path = Path(os.path.expanduser(place))
        if not path.is_file():
            raise UserError(f"factory {factory}: no such file: {path.absolute()}")
        if path.stem in OURS or _is_installed(_find_spec(path.stem)):
            raise UserError(f"factory {factory}: the file would hide the installed module {path.stem!r}: rename it")
        return _texts({path.name: path}, factory)
    top = place.partition(".")[0]
    # A folder without __init__.py has no origin; it must not hide a package of that name.
    specs = (importlib.machinery.PathFinder.find_spec(top, [str(Path.cwd())]), _find_spec(top))
    found = next((spec for spec in specs if spec is not None and spec.origin is not None), None)
    if top in OURS or _is_installed(found):
        return None
    if found is None or found.origin is None:
        raise UserError(
            f"factory {factory}: there is no module {top!r} in this folder or among the installed packages (a package "
            "needs an __init__.py); a file is given by its path, FILE.py:FUNCTION"
        )
    origin = Path(found.origin)
    if not found.submodule_search_locations:
        return _texts({origin.name: origin}, factory)
    files = sorted(origin.parent.rglob("*.py"))
    return _texts({file.relative_to(origin.parent.parent).as_posix(): file for file in files}, factory)


def load_factory(model: ModelSpec) -> Callable[..., Any]:
    """The callable. Raises UserError where its code fails, or does not have it."""
    assert model.factory is not None
    place, _, function = model.factory.rpartition(":")
    try:
        module = _import(place, model.code)
    except UserError as error:
        raise UserError(f"factory {model.factory}: {error}") from None
    except (Exception, SystemExit) as error:  # a user's module may raise anything
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
    before = set(sys.modules)
    module = importlib.import_module(name)
    for other in sorted(set(sys.modules) - before):
        file = getattr(sys.modules[other], "__file__", None)
        if file and not file.startswith(CARRIED) and not _is_everywhere(other.partition(".")[0], file):
            raise UserError(
                f"it imports {other} from {file}, which does not travel with it: put both into a package (a folder "
                "with an __init__.py) and give MODULE:FUNCTION"
            )
    return module


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
        return CARRIED + file

    def get_data(self, path: str | bytes) -> bytes:
        return self.code[str(path).removeprefix(CARRIED)].encode()

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
    return found.origin in ("built-in", "frozen") or _is_installed_at(found.origin)


def _is_everywhere(top: str, file: str) -> bool:
    """Whether a module is there wherever this project is: part of it or of Python, or installed."""
    return top in OURS or _is_installed_at(file) or top in importlib.metadata.packages_distributions()


def _is_installed_at(file: str) -> bool:
    places = [sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")]
    places += [*site.getsitepackages(), site.getusersitepackages(), *(p for p in sys.path if p.endswith("-packages"))]
    return bool({Path(place).resolve() for place in places} & {*Path(file).resolve().parents})


def _texts(files: Mapping[str, Path], factory: str) -> dict[str, str]:
    texts = {}
    for name, path in files.items():
        check_path(f"factory {factory}:", name)
        try:
            texts[name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"factory {factory}: {path}: cannot be read: {error}") from None
    size = sum(map(len, texts.values()))
    if size > MAX_BYTES:
        raise UserError(
            f"factory {factory}: {size:,} characters of code are too many to carry (at most {MAX_BYTES:,}): install it "
            "as a package on every node"
        )
    return texts
