"""What records call this program, wherever it lies: by the commit where git keeps it, else by its files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from grid.contract.program import version

ROOT = Path(version.__file__).parents[3]


def installed(folder: Path, *names: str) -> Path:
    """A copy of the program, or of these parts of it, as a wheel leaves it."""
    for name in names or (*version.PACKAGES, *version.MODULES):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(f"{source}.py", folder)
    return folder


def ask(what: str, *folders: Path, cwd: Path | None = None) -> str:
    """What a fresh interpreter says that finds the program in these folders."""
    # Without what makes the checkout that is tested here known everywhere.
    code = (
        "import sys; sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in repr(finder)]\n"
        f"from grid.contract.program.version import *; print({what})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, cwd=cwd, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    done = subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def thesis(tmp_path: Path) -> Path:
    """A user's own repository, with a commit of its own and the program in an environment below it."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "thesis.tex").write_text("chapter 1")
    git(tmp_path, "add", "thesis.tex")
    git(tmp_path, "commit", "--quiet", "--message", "my thesis")
    return tmp_path


@pytest.mark.parametrize("ignored", [False, True])
def test_a_commit_of_the_users_is_not_the_programs(thesis: Path, ignored: bool) -> None:
    if ignored:
        (thesis / ".gitignore").write_text("env\n")
    said = ask("code_version()", installed(thesis / "env"))
    assert git(thesis, "rev-parse", "HEAD")[:7] not in said
    assert f"(sha256 {version.content_hash()})" in said


def test_a_repository_that_keeps_the_program_names_its_commit(thesis: Path) -> None:
    """The control, and what a checkout says."""
    program = installed(thesis / "program")
    git(thesis, "add", "program")
    git(thesis, "commit", "--quiet", "--message", "the program")
    commit = git(thesis, "rev-parse", "HEAD")[:12]
    assert f"({commit})" in ask("code_version()", program)
    (program / "launch.py").write_text("changed")
    assert f"({commit}+)" in ask("code_version()", program)


def test_two_programs_of_one_number_are_told_apart(tmp_path: Path) -> None:
    one, other = installed(tmp_path / "one"), installed(tmp_path / "other")
    assert ask("code_version()", one) == ask("code_version()", other)
    (other / "grid" / "grids" / "digits.yaml").write_text("changed")
    assert ask("code_version()", one) != ask("code_version()", other)


def test_parts_that_lie_apart_are_the_same_program(tmp_path: Path) -> None:
    """As Ray unpacks them on a node: each in a folder of its own."""
    folders = [installed(tmp_path / name, name) for name in (*version.PACKAGES, *version.MODULES)]
    hashes = version.content_hash(), version.content_hash(version.WORKERS_RUN)
    assert ask("(content_hash(), content_hash(WORKERS_RUN))", *folders) == str(hashes)


def test_a_package_of_the_users_of_the_same_name_is_not_a_part(tmp_path: Path) -> None:
    program, mine = installed(tmp_path / "program"), tmp_path / "mine"
    for name in ("analysis", "kd"):
        (mine / name).mkdir(parents=True)
        (mine / name / "__init__.py").touch()
    (mine / "grid").mkdir()
    assert ask("content_hash()", program, mine) == ask("content_hash()", program)
    assert ask("parts()['analysis']", program, mine) == str(program / "analysis")


def test_a_part_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        ask("parts()", installed(tmp_path / "half", "grid"), cwd=tmp_path)
    assert "analysis" in error.value.stderr or "kd" in error.value.stderr


def test_a_repositorys_configuration_runs_nothing(thesis: Path) -> None:
    program = installed(thesis / "program")
    git(thesis, "add", "program")
    git(thesis, "commit", "--quiet", "--message", "the program")
    hook = thesis / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {thesis}/ran\n")
    hook.chmod(0o755)
    git(thesis, "config", "core.fsmonitor", str(hook))
    ask("code_version()", program)
    assert not (thesis / "ran").exists()
    git(thesis, "status")
    assert (thesis / "ran").exists(), "the control: git itself would run it"
