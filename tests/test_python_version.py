"""A Python that is too old is one line that says what is needed, and leaves nothing behind."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docker_files import PROJECT, ROOT

STARTS = ("launch.py", "analysis/__main__.py")
NEEDED = re.fullmatch(r">=(3\.\d+)", PROJECT["project"]["requires-python"])
# What a Python is taken for, without having an old one: its version is another, and so are those of its children.
PRETEND = "import sys; sys.version_info = (3, 10, 13, 'final', 0); sys.version = '3.10.13 (main)'; "


def make(folder: Path, python: str, *goals: str) -> subprocess.CompletedProcess[str]:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "--directory", str(folder), *goals, f"PYTHON={python}"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def old_python(folder: Path) -> str:
    """A command that runs `-c` as Python 3.10 would see it."""
    script = folder / "python-of-old"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.13 && exit\n[ "$1" = -c ] || exit 9\n'
        f'exec {sys.executable} -c "{PRETEND}$2"\n'
    )
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("file", STARTS)
def test_an_older_python_is_refused_in_one_line_before_anything_is_imported(file: str) -> None:
    code = PRETEND + (
        f"sys.argv[0] = {file!r}; source = open({file!r}).read()\n"
        "sys.meta_path.clear(); sys.path_importer_cache.clear()\n"  # nothing that is not loaded yet can be
        f"exec(compile(source, {file!r}, 'exec'), {{'__name__': '__main__'}})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert NEEDED is not None
    told = f"error: kd-grid needs Python {NEEDED[1]} or newer, and {sys.executable} is 3.10.13\n"
    assert (done.returncode, done.stderr, done.stdout) == (2, told, "")


@pytest.mark.parametrize("file", STARTS)
def test_an_older_python_can_read_what_tells_it_so(file: str) -> None:
    ast.parse((ROOT / file).read_text(encoding="utf-8"), feature_version=(3, 7))


@pytest.mark.parametrize("goal", ["demo", "test"])
def test_make_says_which_python_it_needs_and_leaves_no_environment(tmp_path: Path, goal: str) -> None:
    python = old_python(tmp_path)
    done = make(tmp_path, python, goal)
    assert NEEDED is not None
    assert done.returncode == 2
    line = done.stderr.splitlines()[0]
    assert line == (
        f"error: this needs Python {NEEDED[1]} or newer with its venv module; {python} is Python 3.10.13. "
        f"Name another: make {goal} PYTHON=/path/to/python{NEEDED[1]}"
    )
    assert not (tmp_path / ".venv").exists()


def test_make_says_so_where_there_is_no_python(tmp_path: Path) -> None:
    assert (
        "; /nowhere/python3 is not found. Name another: make demo PYTHON=" in make(tmp_path, "/nowhere/python3").stderr
    )


def test_an_environment_of_an_older_python_is_made_again(tmp_path: Path) -> None:
    """As `make demo` with such a Python once left it behind: with another PYTHON it has to go."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shutil.move(old_python(tmp_path), tmp_path / ".venv/bin/python")
    recorder = tmp_path / "python-that-fits"
    recorder.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$1" != -m ]\n')
    recorder.chmod(0o755)
    make(tmp_path, str(recorder))
    assert (tmp_path / "asked").read_text().splitlines()[-1] == "-m venv --clear .venv"
