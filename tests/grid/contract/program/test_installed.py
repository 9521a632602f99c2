"""Messages name commands that work where they are read."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import launch
from analysis.arguments import parser as analysis_parser
from analysis.cli import main as analysis
from grid.contract.program import installed
from grid.contract.program.version import code_version

ROOT = Path(__file__).parents[4]


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As in site-packages, where launch.py lies beside the packages and no project does."""
    (tmp_path / "launch.py").touch()
    monkeypatch.setattr(installed, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "grid", "analysis"),
    [
        ("launch.py", "python launch.py", "python -m analysis"),
        (str(ROOT / "launch.py"), f"python {ROOT}/launch.py", "python -m analysis"),
        (str(ROOT / "analysis/__main__.py"), "python launch.py", "python -m analysis"),
        ("/env/bin/kd-grid", "kd-grid", "kd-analysis"),
        ("/env/bin/kd-analysis", "kd-grid", "kd-analysis"),
        ("/env/lib/ipykernel_launcher.py", "python launch.py", "python -m analysis"),
    ],
)
def test_in_the_checkout_the_commands_are_those_that_were_typed(
    typed: str, grid: str, analysis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [typed])
    monkeypatch.chdir(ROOT)
    assert (installed.grid_command(), installed.analysis_command()) == (grid, analysis)


@pytest.mark.parametrize(
    ("typed", "grid"),
    [("../a b/launch.py", "python '../a b/launch.py'"), ("/env/lib/ipykernel_launcher.py", "kd-grid")],
)
def test_elsewhere_a_folder_may_have_an_analysis_of_its_own(
    typed: str, grid: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", [typed])
    monkeypatch.chdir(tmp_path)
    assert (installed.grid_command(), installed.analysis_command()) == (grid, "kd-analysis")


@pytest.mark.parametrize("typed", ["/env/bin/kd-grid", "/env/lib/python3/site-packages/launch.py", "-c"])
def test_an_installed_package_has_commands_alone(typed: str, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [typed])
    for folder in (ROOT, wheel):
        monkeypatch.chdir(folder)
        assert (installed.grid_command(), installed.analysis_command()) == ("kd-grid", "kd-analysis")
        assert installed.hint("s3") == "pip install 'kd-grid[s3]'"


def test_a_part_is_installed_into_the_checkout_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert installed.hint("s3") == "pip install -e '.[s3]' -c constraints.txt"
    monkeypatch.chdir(tmp_path)
    assert installed.hint("s3") == f"pip install -e '{ROOT}[s3]' -c {ROOT}/constraints.txt"
    assert installed.storage_hint("gs") == f"needs a package that is not installed: {installed.hint('gcs')}"
    assert installed.storage_hint("sftp") is None


def test_a_folder_that_is_gone_is_not_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.rmdir(tmp_path)
    assert installed.grid_command() == "kd-grid"


def test_usage_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/env/bin/kd-grid"])
    assert launch.parser().format_usage().startswith("usage: kd-grid ")
    assert analysis_parser().format_usage().startswith("usage: kd-analysis ")


def test_the_version_is_that_of_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (launch.main, analysis):
        assert command(["--version"]) == 0
        assert capsys.readouterr().out == f"kd-grid {code_version()}\n"
    for words in (["launch.py"], ["-m", "analysis"]):
        done = subprocess.run([sys.executable, *words, "--version"], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"kd-grid {code_version()}\n", "")


def test_no_other_code_names_a_command_or_says_how_something_is_installed() -> None:
    named = ("python launch.py", "python -m analysis", "kd-analysis ", "pip install -e", "kd-grid[")
    paths = [ROOT / "launch.py", *(path for part in ("grid", "kd", "analysis") for path in (ROOT / part).rglob("*.py"))]
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        docstrings = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented)}
        texts = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)} - docstrings
        found = [text for text in texts if any(name in text for name in named)]
        assert path == ROOT / "grid/contract/program/installed.py" or not found, f"{path}: {found}"
