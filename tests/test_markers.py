"""Which tests start a Ray is known before they run, and no other test can."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import NO_RAY
from tests.launching import ROOT

START = "import ray; ray.init(address='local', num_cpus=0, include_dashboard=False, logging_level='error')"


def collected(*args: str) -> set[str]:
    """The files that pytest would run something of."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 5), done.stdout + done.stderr  # 5: nothing
    return {line.partition(":")[0] for line in done.stdout.splitlines() if line.startswith("tests/")}


@pytest.mark.long
def test_what_launches_grids_is_marked_and_runs_only_where_it_is_named() -> None:
    folder = ROOT / "tests/integration"
    others = [f"--ignore={path}" for path in (ROOT / "tests").iterdir() if path != folder]
    assert collected("-m", "ray", *others) == {path.relative_to(ROOT).as_posix() for path in folder.glob("test_*.py")}
    assert not collected(*others), "pytest alone starts a Ray"


def test_without_the_marker_no_process_of_a_test_starts_a_ray() -> None:
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, f"Ray does not heed {NO_RAY}: {done.stdout}"
    assert "If 'use_gdb' is true, then 'use_tmux' must be true as well." in done.stderr
