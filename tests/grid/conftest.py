"""Shared by the tests of stages."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from grid.stages import Runtime


@pytest.fixture
def runtime() -> Runtime:
    return Runtime.here(threads=1, device="cpu", launch="launch-1", code_version="test")


@pytest.fixture(autouse=True)
def copies_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is copied from an object store to this machine is gone with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
