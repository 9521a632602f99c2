"""Shared by the tests of stages."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import pytest

from grid.store.store import Store
from grid.work.execute import Runtime
from tests.object_store import BUCKET


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(launch="launch-1", code_version="test").here(threads=1, device="cpu")


@pytest.fixture(autouse=True)
def copies_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is copied from an object store to this machine is gone with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def store_anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same behaviour on a folder and on object stores."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    roots = {
        "local": tmp_path / "runs",
        "memory": f"memory://{uuid.uuid4().hex}",
        "s3": f"s3://{BUCKET}/{uuid.uuid4().hex}",
    }
    return Store(str(roots[request.param]))
