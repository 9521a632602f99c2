"""Which version of this program runs."""

from __future__ import annotations

import contextlib
import subprocess
from importlib import metadata
from pathlib import Path


def code_version() -> str:
    """The installed version, with the commit when it runs from a checkout ('+' marks uncommitted changes)."""
    version = "unknown"
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version("kd-grid")
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return f"{version} ({subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()})"
    return version
