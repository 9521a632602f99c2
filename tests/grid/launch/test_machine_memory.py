"""A launch says where memory is short, before Ray ends without a word."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from grid.launch import machine_memory
from grid.launch.machine_memory import ADDRESS_BYTES, LAUNCH_BYTES, available_bytes, short_of_memory
from tests.conftest import tiny_grid
from tests.launching import ROOT, write_grid

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the machine's files lie."""
    monkeypatch.setattr(machine_memory, "_MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr(machine_memory, "_CGROUP", tmp_path)
    (tmp_path / "meminfo").write_text(f"MemTotal: {64 * GIB // 1024} kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    return tmp_path


def test_of_machine_and_control_group_the_smaller_counts(machine: Path) -> None:
    assert available_bytes() == 8 * GIB
    (machine / "memory.max").write_text("max\n")
    (machine / "memory.current").write_text(f"{GIB}\n")
    assert available_bytes() == 8 * GIB
    (machine / "memory.max").write_text(f"{2 * GIB}\n")
    assert available_bytes() == GIB
    (machine / "meminfo").unlink()
    assert available_bytes() is None


@pytest.mark.parametrize(("free", "is_short"), [(LAUNCH_BYTES, False), (LAUNCH_BYTES - 2**20, True)])
def test_a_launch_without_room_is_warned(machine: Path, free: int, is_short: bool) -> None:
    (machine / "meminfo").write_text(f"MemAvailable: {free // 1024} kB\n")
    assert short_of_memory().startswith("only 3.0 GiB of memory is free here") == is_short
    assert bool(short_of_memory()) == is_short


def test_a_limit_of_addresses_is_a_line(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES // 2, ADDRESS_BYTES // 2))

    command = [sys.executable, str(ROOT / "launch.py"), "--grid", write_grid(tmp_path, tiny_grid())]
    done = subprocess.run(
        [*command, "--wandb", "disabled"], cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: a process may take 4.0 GiB of addresses here, and Ray with torch maps more, most of which is never "
        "used: lift the limit (ulimit -v unlimited), or set it to 8.0 GiB at least\n",
    )
