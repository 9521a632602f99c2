"""A package that is not installed is told apart from one that is and cannot be imported."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import grid.publish.folder
from analysis.errors import AnalysisError
from analysis.read.storage import Reader
from analysis.tracking.summary import report_blocks
from grid.cluster.session import Dashboard, _client_problem
from grid.contract.program.imports import broken
from grid.errors import UserError
from grid.files.connect import connect
from kd.models.onnx_file import OnnxError, write_onnx

WAITS = (1.0, 1.0)
ABSENT = "ModuleNotFoundError: No module named 'no_such_part'"


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    return Plant(tmp_path, monkeypatch)


class Plant:
    """Installs packages, of version 9.8.7, whose import fails for want of another."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        monkeypatch.syspath_prepend(str(folder))

    def __call__(self, module: str, code: str = "import no_such_part\n") -> None:
        (self.folder / module).mkdir()
        (self.folder / module / "__init__.py").write_text(code)
        info = self.folder / f"{module}-9.8.7.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 9.8.7\n")
        (info / "top_level.txt").write_text(f"{module}\n")
        for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
            self.monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()


def failure(module: str) -> ImportError:
    with pytest.raises(ImportError) as caught:
        importlib.import_module(module)
    return caught.value


def test_a_package_that_is_not_installed_is_not_broken() -> None:
    assert broken(failure("no_such_part"), "no_such_part") == ""
    assert broken(failure("no_such_part")) == ""
    assert broken(ImportError("of nobody knows what")) == ""


def test_one_that_is_installed_is_named_with_its_version_and_the_error(plant: Plant) -> None:
    plant("half_there")
    assert broken(failure("half_there"), "half_there") == (
        f"half-there 9.8.7 is installed, but cannot be imported here: {ABSENT}; install versions that fit each other"
    )


def test_so_is_the_installed_one_that_lacks_what_is_asked_of_it(plant: Plant) -> None:
    plant("too_old", "")
    plant("half_there", "from too_old import news\n")
    assert "half-there 9.8.7 and too-old 9.8.7 are installed, but cannot be imported here: ImportError: cannot" in (
        broken(failure("half_there"), "half_there")
    )


@pytest.mark.long
@pytest.mark.parametrize("kind", ["s3", "s3a", "gs", "gcs", "abfs"])
def test_a_storages_package_that_is_broken_is_not_told_as_missing(
    kind: str, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs"}[kind]
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, kind, raising=False)
    plant(module, "from numpy import no_such_name\n")
    for refused in (lambda url: connect(url, WAITS), Reader):
        with pytest.raises((UserError, AnalysisError)) as caught:
            refused(f"{kind}://bucket/kd")
        text = str(caught.value)
        assert text.startswith(f"--storage {kind}://bucket/kd: ")
        assert "installed, but cannot be imported here: ImportError: cannot import name 'no_such_name' from" in text
        assert f"numpy {np.__version__}" in text
        assert kind == "abfs" or f"{module} 9.8.7" in text
        assert "pip install" not in text


def test_a_broken_package_of_reports_is_not_told_as_missing(plant: Plant) -> None:
    plant("wandb_workspaces")
    with pytest.raises(
        AnalysisError, match=r"^--report: wandb-workspaces 9\.8\.7 is installed, but cannot be imported"
    ):
        report_blocks(None, project="kd")  # type: ignore[arg-type]


@pytest.mark.parametrize("module", ["onnx", "onnxscript"])
def test_a_broken_package_of_the_export_leaves_the_rest_with_a_note(module: str, plant: Plant, tmp_path: Path) -> None:
    plant(module)
    net, notes = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval(), list[str]()
    with pytest.raises(OnnxError):
        write_onnx(net, tmp_path / "model.onnx", input_size=(3, 2, 2))
    assert grid.publish.folder._onnx(net, tmp_path, (3, 2, 2), notes) is None
    (note,) = notes
    assert f"{module} 9.8.7" in note
    assert f"are installed, but cannot be imported here: {ABSENT}" in note


def test_a_broken_package_of_the_dashboard_is_not_told_as_missing(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant("aiohttp", "from numpy import no_such_name\n")
    monkeypatch.delitem(sys.modules, "ray.dashboard.optional_deps", raising=False)
    with pytest.raises(UserError, match=r"^--dashboard: ray \S+ and numpy \S+ are installed, but cannot be imported"):
        Dashboard.at("localhost:8265").check()


def test_a_broken_package_of_the_ray_client_is_not_told_as_missing(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _client_problem() == ""
    plant("grpc")
    assert _client_problem().startswith("grpc 9.8.7 is installed, but cannot be imported here: ")
    monkeypatch.setitem(sys.modules, "grpc", None)
    assert _client_problem() == ""
