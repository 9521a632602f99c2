"""`python -m tests.package.lowest`: this program beside the oldest versions that pyproject.toml allows, which
`make test-lowest` installs. Status 1 if a step failed."""

from __future__ import annotations

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.building import ROOT
from tests.package.steps import SHORT, expect, run, try_all

WITHOUT_ONNX = "import sys; sys.modules['onnx'] = None; import analysis.cli; sys.exit(analysis.cli.main(sys.argv[1:]))"


def python(folder: Path, *arguments: str) -> str:
    return run([sys.executable, *arguments], folder, environment={"PYTHONPATH": str(ROOT)})


def plans(folder: Path) -> None:
    expect(python(folder, "-m", "launch", "--grid", "digits", "--dry-run"), "32 stages")


def runs_a_grid(folder: Path) -> None:
    expect(python(folder, "-m", "launch", "--grid", "digits", *SHORT), "Done: 14 stages computed, 0 reused.")


def makes_tables(folder: Path) -> None:
    expect(python(folder, "-m", "analysis", "table", "digits"), "ResNet → ViT")


def makes_a_report(folder: Path) -> None:
    python(folder, "-m", "analysis", "report", "digits", "--output", "report.html")
    expect((folder / "report.html").read_text(encoding="utf-8"), '<img src="data:image/svg+xml')


def makes_pictures(folder: Path) -> None:
    python(folder, "-m", "analysis", "plots", "digits", "--output", "pictures")
    expect(" ".join(path.name for path in (folder / "pictures").iterdir()), "gains.svg")


def exports_a_student_with_onnx(folder: Path) -> None:
    python(folder, "-m", "analysis", "export", "digits", "--student", "ViT-S", "--to", "with-onnx")
    expect(" ".join(sorted(path.name for path in (folder / "with-onnx").iterdir())), "config.json model.onnx")


def exports_a_student_without_onnx(folder: Path) -> None:
    arguments = ("export", "digits", "--student", "ViT-S", "--to", "without-onnx")
    expect(python(folder, "-c", WITHOUT_ONNX, *arguments), "no model.onnx: onnx not installed")


def imports_what_a_report_at_wandb_is_made_of(folder: Path) -> None:
    python(folder, "-c", "import analysis.tracking.summary as summary; summary._reports()")


def shares_an_s3_with_a_forked_process(folder: Path) -> None:
    test = str(ROOT / "tests/grid/files/test_object_store.py")
    run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test, "-k", "forked"], ROOT)


STEPS = (
    plans,
    runs_a_grid,
    makes_tables,
    makes_a_report,
    makes_pictures,
    exports_a_student_with_onnx,
    exports_a_student_without_onnx,
    imports_what_a_report_at_wandb_is_made_of,
    shares_an_s3_with_a_forked_process,
)


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="kd-lowest-"))
    failed = try_all([(step.__name__.replace("_", " "), partial(step, folder)) for step in STEPS])
    print(f"{failed} steps FAILED; what they left is in {folder}" if failed else "Everything is as it should be.")
    if not failed:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
