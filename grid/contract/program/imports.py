"""Whether an optional package failed to import because it is not installed, or although it is."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

from grid.contract.text import on_one_line

# What fsspec needs for a kind of storage, as modules; of what is not named here it says itself what it needs.
STORAGE_MODULES = {
    **dict.fromkeys(("s3", "s3a"), ("aiobotocore", "s3fs")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs",)),
}


def broken(error: BaseException, *modules: str) -> str:
    """What is wrong where all of these top-level modules (default: the one that the error names) are installed and
    importing them failed nevertheless: their versions and the error. Empty where one is not installed."""
    while isinstance(error.__cause__, ImportError):  # fsspec puts a guess of its own in front
        error = error.__cause__
    named = [module] if (module := missing_module(error)) else []
    wanted = [*dict.fromkeys(modules or named)]
    if not wanted or any(find_spec(module) is None for module in wanted):
        return ""
    wanted += [module for module in named if module not in wanted and find_spec(module) is not None]
    names = [_with_version(module) for module in wanted]
    listed = f"{', '.join(names[:-1])} and {names[-1]} are" if len(names) > 1 else f"{names[0]} is"
    said = on_one_line(f"{type(error).__name__}: {error}")
    return f"{listed} installed, but cannot be imported here: {said}; install versions that fit each other"


def missing_module(error: BaseException) -> str:
    """The top-level module that an import error is about; empty where it names none."""
    return (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""


def _with_version(module: str) -> str:
    for distribution in metadata.packages_distributions().get(module, ()):
        return f"{distribution} {metadata.version(distribution)}"
    return module
