"""`python -m tests.package`: the wheel, installed where nothing is as in the checkout. Status 1 if a step failed.

It is installed in an environment of its own, and used in a folder that is somebody else's project: under its own git,
with a `kd/`, a `grid.py` and an `analysis/` that are not ours.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.building import ROOT, built, copied
from tests.docker_files import PROJECT
from tests.package.hidden_ray import HiddenRay, hidden_ray
from tests.package.steps import SHORT, SkippedError, StepError, expect, run, try_all

VERSION = PROJECT["project"]["version"]
NOTEBOOK = """
import nbformat
from nbclient import NotebookClient
cell = nbformat.v4.new_code_cell("from analysis.load import load_grid\\nload_grid('../runs', 'digits').cells.shape")
book = nbformat.v4.new_notebook(cells=[cell])
NotebookClient(book, timeout=600).execute()
print(cell.outputs[0]["data"]["text/plain"])
"""
# The third line is wrong on purpose.
TYPED = """from analysis.load import load_grid
grid = load_grid("../runs", "digits")
rows: str = grid.cells
"""


class Installed:
    """The wheel in `user`, its dependencies alone in `node`, and somebody's project in `project`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user, self.node, self.project = folder / "user", folder / "node", folder / "project"
        self.notebooks = self.project / "notebooks"  # where no module beside it hides ours

    def prepare(self) -> None:
        wheel = built("wheel", copied(self.folder / "source"), self.folder)
        shutil.rmtree(self.folder / "source")
        self._environment(self.user, f"{wheel}[client,export]", "ipykernel", "mypy", "nbclient")
        self._environment(self.node, "-r", str(ROOT / "pyproject.toml"), "--extra", "client")
        self.notebooks.mkdir(parents=True)
        (self.project / "grid.py").write_text("raise ImportError('somebody else\\'s grid')\n")
        for name in ("kd", "analysis"):
            (self.project / name).mkdir()
            (self.project / name / "__init__.py").write_text(f"raise ImportError('somebody else\\'s {name}')\n")
        me = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        for command in (["init", "--quiet"], ["add", "."], [*me, "commit", "--quiet", "--message", "A thesis"]):
            run(["git", *command], self.project)

    def command(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Of those that the wheel installs."""
        return run([str(self.user / "bin" / name), *arguments], self.project, environment=environment)

    def python(self, *arguments: str) -> str:
        return run([str(self.user / "bin/python"), *arguments], self.notebooks)

    def _environment(self, folder: Path, *what: str) -> None:
        uv = str(Path(sys.executable).with_name("uv"))
        run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], self.folder)
        into = ["--python", str(folder / "bin/python"), "--constraint", str(ROOT / "constraints.txt")]
        run([uv, "pip", "install", "--quiet", *into, *what], self.folder)


def shows_its_version(at: Installed) -> None:
    for command in ("kd-grid", "kd-analysis"):
        expect(at.command(command, "--version"), VERSION)


def lists_the_grids(at: Installed) -> None:
    expect(at.command("kd-grid", "--list"), "digits")


def runs_a_grid(at: Installed) -> None:
    expect(at.command("kd-grid", "--grid", "digits", *SHORT), "Done: 14 stages computed, 0 reused.")


def records_name_no_commit_of_the_project_around_it(at: Installed) -> None:
    commit = run(["git", "rev-parse", "--short=12", "HEAD"], at.project).strip()
    for path in (at.project / "runs").rglob("record.json"):
        if commit in path.read_text(encoding="utf-8"):
            raise StepError(f"{path} names the commit {commit} of the project around it as this program's")


def makes_tables(at: Installed) -> None:
    expect(at.command("kd-analysis", "table", "digits"), "ResNet → ViT")


def makes_a_report(at: Installed) -> None:
    at.command("kd-analysis", "report", "digits", "--output", "report.html")
    expect((at.project / "report.html").read_text(encoding="utf-8"), "<svg")


def exports_a_student(at: Installed) -> None:
    at.command("kd-analysis", "export", "digits", "--student", "ViT-S", "--to", "out")
    expect(" ".join(path.name for path in (at.project / "out").iterdir()), "model.onnx")


def gives_types(at: Installed) -> None:
    (at.notebooks / "typed.py").write_text(TYPED)
    said = run([str(at.user / "bin/python"), "-m", "mypy", "typed.py"], at.notebooks, status=1)
    expect(said, 'typed.py:3: error: Incompatible types in assignment (expression has type "DataFrame"')
    expect(said, "Found 1 error in 1 file")


def works_in_a_notebook(at: Installed) -> None:
    expect(at.python("-c", NOTEBOOK), "(9, ")


def the_source_distributions_tests_are_found(at: Installed) -> None:
    archive = built("sdist", copied(at.folder / "source"), at.folder)
    with tarfile.open(archive) as packed:
        packed.extractall(at.folder, filter="data")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    run(command, at.folder / archive.name.removesuffix(".tar.gz"))


def joins(at: Installed, ray: HiddenRay, address: str, storage: str) -> None:
    place = ("--storage", str(at.folder / storage))
    said = at.command("kd-grid", "--grid", "digits", *SHORT, "--address", address, *place, environment=ray.environment)
    expect(said, "Done: 14 stages computed, 0 reused.")


def with_a_ray_that_sees_neither_checkout_nor_installation(at: Installed) -> int:
    """How many of its steps failed."""
    try:
        with hidden_ray(at.node / "bin/python", [ROOT, at.user]) as ray:
            return try_all(
                [
                    ("--address", lambda: joins(at, ray, ray.address, "joined")),
                    ("ray://", lambda: joins(at, ray, ray.client_address, "through-a-client")),
                ]
            )
    except SkippedError as why:
        print(f"--address and ray://: skipped: {why}")
        return 0


STEPS = (
    shows_its_version,
    lists_the_grids,
    runs_a_grid,
    records_name_no_commit_of_the_project_around_it,
    makes_tables,
    makes_a_report,
    exports_a_student,
    gives_types,
    works_in_a_notebook,
    the_source_distributions_tests_are_found,
)


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="kd-package-"))
    at = Installed(folder)
    print(f"The wheel in an environment of its own, in {folder}", flush=True)
    if try_all([("builds and installs", at.prepare)]):
        return 1
    failed = try_all([(step.__name__.replace("_", " "), partial(step, at)) for step in STEPS])
    failed += with_a_ray_that_sees_neither_checkout_nor_installation(at)
    print(f"{failed} steps FAILED; what they left is in {folder}" if failed else "Everything is as it should be.")
    if not failed:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
