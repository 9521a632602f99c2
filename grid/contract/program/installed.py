"""How this program is installed and called: the commands that messages name, and how an optional part is installed."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from grid.contract.files.layout import STORAGE
from grid.contract.program.version import code_version

PACKAGE = "kd-grid"
GRID, ANALYSIS = "kd-grid", "kd-analysis"  # the commands that an installation brings

# Beside the packages in a checkout. An installation has launch.py there, but never the other.
ROOT = Path(__file__).resolve().parents[3]
SCRIPT, PROJECT = "launch.py", "pyproject.toml"

# Which optional part of the package reads a storage of that kind.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def grid_command() -> str:
    """The command that runs a grid, as it works from here: launch.py as it was typed, or in the checkout's folder, and
    otherwise the installed command."""
    if _is_typed_script():
        return shlex.join(["python", sys.argv[0]])
    return f"python {SCRIPT}" if _is_called_in_checkout() else GRID


def analysis_command() -> str:
    """The command that shows results, likewise. `python -m analysis` would take another folder's own `analysis`."""
    return "python -m analysis" if _is_called_in_checkout() else ANALYSIS


def storage_option(storage: str) -> str:
    """What a command in a message says of the storage."""
    return "" if storage == STORAGE else f" --storage {shlex.quote(storage)}"


def hint(extra: str) -> str:
    """How an optional part is installed into what runs here."""
    if not _is_checkout():
        return f"pip install '{PACKAGE}[{extra}]'"
    if _stands_in_checkout():
        return f"pip install -e '.[{extra}]' -c constraints.txt"
    return f"pip install -e {shlex.quote(f'{ROOT}[{extra}]')} -c {shlex.quote(f'{ROOT}/constraints.txt')}"


def storage_hint(kind: str) -> str | None:
    """How what reads storages of a kind (`s3` of s3://...) is installed; None for a kind that is no part of this."""
    extra = _EXTRAS.get(kind)
    return None if extra is None else f"needs a package that is not installed: {hint(extra)}"


def _is_checkout() -> bool:
    return (ROOT / SCRIPT).is_file() and (ROOT / PROJECT).is_file()


def _stands_in_checkout() -> bool:
    try:
        return _is_checkout() and Path.cwd() == ROOT
    except FileNotFoundError:  # the folder in which one stands has been removed
        return False


def _is_typed_script() -> bool:
    return Path(sys.argv[0]).name == SCRIPT and _is_checkout()


def _is_called_in_checkout() -> bool:
    """Whether one stands in the checkout, and has not called an installed command there."""
    return _stands_in_checkout() and Path(sys.argv[0]).name not in (GRID, ANALYSIS)


class ShowVersion(argparse.Action):
    """--version: what records say of the program that wrote them. It is looked up when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show which version this is, as records have it, and stop")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"{PACKAGE} {code_version()}")
        parser.exit()
