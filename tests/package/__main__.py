"""`python -m tests.package`: the wheel, installed where nothing is as in the checkout. Status 1 if a step failed.

It is installed in an environment of its own, and used in a folder that is somebody else's project: under its own git,
with a `kd/`, a `grid.py` and an `analysis/` that are not ours.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import yaml

from tests.building import ROOT, built, copied
from tests.docker_files import PROJECT
from tests.package import notebook
from tests.package.hidden_ray import HiddenRay, hidden_ray
from tests.package.steps import SHORT, SkippedError, StepError, expect, run, try_all

VERSION = PROJECT["project"]["version"]
# The third line is wrong on purpose.
TYPED = """from analysis import load_grid
grid = load_grid("../runs", "digits")
rows: str = grid.cells
"""


class Installed:
    """The wheel in `user`, its dependencies alone in `node`, somebody's project in `project`, and a checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user, self.node, self.project = folder / "user", folder / "node", folder / "project"
        self.checkout = folder / "checkout"
        self.notebooks = self.project / "notebooks"  # where no module beside it hides ours

    def prepare(self) -> None:
        copied(self.checkout)
        wheel = built("wheel", copied(self.folder / "source"), self.folder)
        shutil.rmtree(self.folder / "source")
        self._environment(self.user, f"{wheel}[client,export]", "ipykernel", "mypy")
        self._environment(self.node, "-r", str(ROOT / "pyproject.toml"), "--extra", "client", "--extra", "dashboard")
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
    expect((at.project / "report.html").read_text(encoding="utf-8"), '<img src="data:image/svg+xml')


def exports_a_student(at: Installed) -> None:
    at.command("kd-analysis", "export", "digits", "--student", "ViT-S", "--to", "out")
    expect(" ".join(path.name for path in (at.project / "out").iterdir()), "model.onnx")


def gives_types(at: Installed) -> None:
    (at.notebooks / "typed.py").write_text(TYPED)
    said = run([str(at.user / "bin/python"), "-m", "mypy", "typed.py"], at.notebooks, status=1)
    expect(said, 'typed.py:3: error: Incompatible types in assignment (expression has type "DataFrame"')
    expect(said, "Found 1 error in 1 file")


def works_in_a_notebook(at: Installed) -> None:
    shutil.copy(Path(notebook.__file__), at.notebooks)
    expect(at.python(Path(notebook.__file__).name), notebook.PASSED)


def the_source_distributions_tests_are_found(at: Installed) -> None:
    archive = built("sdist", copied(at.folder / "source"), at.folder)
    with tarfile.open(archive) as packed:
        packed.extractall(at.folder, filter="data")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    run(command, at.folder / archive.name.removesuffix(".tar.gz"))


def line_of(file: str, beginning: str, changes: Mapping[str, str]) -> list[str]:
    """A command line as a document has it, in words, some of them changed to what there is here."""
    lines = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    found = [line.partition("  #")[0] for line in lines if line.strip().startswith(beginning)]
    if len(found) != 1:
        raise StepError(f"{len(found)} lines of {file} begin with {beginning}")
    return _changed(shlex.split(found[0]), changes)


def service_line(service: str, changes: Mapping[str, str]) -> list[str]:
    """The command line of a service in docker/compose.yaml."""
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))["services"]
    return _changed([*services[service]["entrypoint"], *services[service]["command"]], changes)


def _changed(words: Sequence[str], changes: Mapping[str, str]) -> list[str]:
    missing = changes.keys() - set(words)
    if missing:
        raise StepError(f"{shlex.join(words)} has no {', '.join(sorted(missing))}")
    return [changes.get(word, word) for word in words]


def joins(folder: Path, line: Sequence[str], ray: HiddenRay) -> None:
    said = run([*line, *SHORT], folder, environment=ray.environment)
    expect(said, "Done: 14 stages computed, 0 reused.")


def with_a_ray_that_sees_neither_checkout_nor_installation(at: Installed) -> int:
    """How many of its steps failed."""

    def wheel(address: str, storage: str) -> None:
        grid = str(at.user / "bin/kd-grid"), "--grid", "digits"
        joins(at.project, [*grid, "--address", address, "--storage", str(at.folder / storage)], ray)

    def compose() -> None:
        program, storage = str(at.user / "bin/kd-grid"), str(at.folder / "composed")
        changes = {"kd-grid": program, "ray://head:10001": ray.client_address, "/storage": storage}
        joins(at.project, service_line("launch", changes), ray)

    def checkout() -> None:
        changes = {"python": sys.executable, "/shared/kd": str(at.folder / "checked-out")}
        joins(at.checkout, line_of("README.md", "python launch.py --grid digits --address auto", changes), ray)

    def job() -> None:
        changes = {
            "ray": str(at.node / "bin/ray"),
            "http://HEAD:8265": ray.dashboard,
            "cifar100_full": "digits",
            "s3://bucket/kd": str(at.folder / "submitted"),
        }
        joins(at.checkout, line_of("README.md", "ray job submit", changes), ray)

    def pod() -> None:
        program, storage = str(at.user / "bin/kd-grid"), str(at.folder / "in-a-pod")
        changes = {"kd-grid": program, "/storage": storage}
        _, *line = line_of("docker/kuberay/rayjob.yaml", "entrypoint:", changes)
        joins(at.project, line, ray)

    try:
        with hidden_ray(at.node / "bin/python", [ROOT, at.checkout, at.user]) as ray:
            return try_all(
                [
                    ("the wheel with --address HOST:PORT", lambda: wheel(ray.address, "joined")),
                    ("the wheel with --address ray://HOST:PORT", lambda: wheel(ray.client_address, "through-a-client")),
                    ("the launch service of docker/compose.yaml", compose),
                    ("the entrypoint of docker/kuberay/rayjob.yaml", pod),
                    ("README.md's line with --address auto, from a checkout", checkout),
                    ("README.md's line with ray job submit, from a checkout", job),
                ]
            )
    except SkippedError as why:
        print(f"a Ray that sees neither checkout nor installation: skipped: {why}")
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
