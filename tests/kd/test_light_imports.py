from __future__ import annotations

import subprocess
import sys

import pytest


def loaded(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["kd", "kd.recipe", "kd.data.views.policy", "kd.data.catalog"])
def test_what_only_describes_costs_no_heavy_import(module: str) -> None:
    heavy = {"torch", "torchvision", "timm", "numpy", "sklearn", "ray", "pydantic"}
    assert not heavy & loaded(f"import {module}")


def test_the_digits_are_read_without_the_library_they_come_with() -> None:
    assert not {"sklearn", "torch"} & loaded("from kd.data.reading.digits import Digits; Digits().read()")
