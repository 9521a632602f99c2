"""A process is gone only where that is certain."""

from __future__ import annotations

import os
import subprocess

import pytest

from grid.contract.processes import born, is_gone, machine


def test_a_process_that_has_ended_is_gone() -> None:
    child = subprocess.Popen(["sleep", "60"])
    begun = born(child.pid)
    assert not is_gone(machine(), child.pid, begun)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(machine(), child.pid, begun)  # before anybody has waited for it, too
    child.wait()
    assert is_gone(machine(), child.pid, begun)


def test_another_process_of_its_number_is_not_it() -> None:
    assert not is_gone(machine(), os.getpid(), born(os.getpid()))
    assert is_gone(machine(), os.getpid(), "1")


@pytest.mark.parametrize(
    ("where", "pid", "begun"),
    [("another boot", 1, "1"), ("", 1, "1"), (None, 1, "1"), (["x"], 1, "1"), (..., "../1", "1"), (..., 1, None)],
)
def test_of_what_is_no_fact_of_this_machine_nobody_knows(where: object, pid: object, begun: object) -> None:
    assert not is_gone(machine() if where is ... else where, pid, begun)
