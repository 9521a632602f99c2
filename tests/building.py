"""Build the wheel and the source distribution from a copy of this project."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(
    *(".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build", "dist", "runs", "wandb")
)
BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"


def copied(folder: Path) -> Path:
    """The project without what was made in it: building leaves files of its own there."""
    return Path(shutil.copytree(ROOT, folder, ignore=LEFT_OUT))


def built(what: str, source: Path, target: Path) -> Path:
    """what: wheel or sdist. Returns the file in the folder `target`."""
    command = [sys.executable, "-c", BUILD, f"build_{what}", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]
