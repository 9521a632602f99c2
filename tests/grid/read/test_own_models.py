"""Models of the user's own: found where the grid is read, carried by its spec, imported from there alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grid.errors import UserError
from grid.plan import Plan, make_plan, stage_from_json, stage_to_json
from grid.read.code import find_code, load_factory
from grid.read.grid_file import load_grid
from grid.spec.model import ModelSpec
from grid.store.store import Store
from grid.watch.preview import inspect_models
from grid.work.execute import Runtime
from tests.conftest import tiny_grid
from tests.grid.running import prepare, train
from tests.launching import ROOT

MLP = """
from torch import nn

def mlp(num_classes, width=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, num_classes))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan_with(here: Path, *students: Any, **changes: Any) -> Plan:
    grid = {"teachers": [], "modes": ["baseline"], "seeds": [0], **changes, "students": list(students)}
    (here / "own.yaml").write_text(json.dumps(tiny_grid(**grid)))
    return make_plan(load_grid("own.yaml"))


def write_package(here: Path) -> None:
    package = here / "my_nets"
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "parts/__init__.py").write_text("WIDTH = 8\n")
    (package / "small.py").write_text("from my_nets.parts import WIDTH\nfrom .parts import WIDTH as SAME\n" + MLP)


@pytest.mark.parametrize("entry", ["my_models.py:mlp", {"factory": "my_models.py:mlp", "label": "Mine"}])
def test_a_students_file_is_all_that_is_needed(here: Path, entry: Any, runtime: Runtime) -> None:
    """And only while the grid is read: workers have it from the plan."""
    (here / "my_models.py").write_text(MLP)
    plan = plan_with(here, entry)
    (here / "my_models.py").unlink()
    assert inspect_models(plan)[f"students/{plan.spec.students[0].shown}"].parameters == 64 * 8 + 8 + 8 * 10 + 10
    store = Store(str(here / "runs"))
    prepare(plan, store, runtime)
    (cell,) = plan.cells
    assert train(cell, store, runtime) is None
    assert store.record(cell).student == "mlp"


@pytest.mark.long
def test_a_package_is_carried_whole_and_imported_in_a_fresh_process_elsewhere(here: Path, tmp_path: Path) -> None:
    write_package(here)
    model = plan_with(here, "my_nets.small:mlp").spec.students[0]
    assert model.code is not None
    assert sorted(model.code) == ["my_nets/__init__.py", "my_nets/parts/__init__.py", "my_nets/small.py"]
    script = (
        "import sys; from grid.spec.model import ModelSpec; from grid.read.code import load_factory\n"
        "print(load_factory(ModelSpec.model_validate_json(sys.argv[1]))(10))"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, model.model_dump_json()],
        cwd=elsewhere,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert "out_features=10" in done.stdout, done.stderr


def test_what_is_installed_is_not_carried(here: Path) -> None:
    model = plan_with(here, {"factory": "torchvision.models:resnet18", "image_size": 32}, dataset={"name": "cifar10"})
    (student,) = model.spec.students
    assert student.code is None
    assert load_factory(student)(num_classes=10).fc.out_features == 10


def test_a_folder_of_that_name_does_not_hide_what_is_installed(here: Path) -> None:
    (here / "torchvision").mkdir()
    assert find_code("torchvision.models:resnet18") is None


def test_an_id_holds_the_code_and_not_its_place(here: Path) -> None:
    def id_of(folder: str, code: str, entry: str = "my_models.py:mlp") -> str:
        (here / folder).mkdir(exist_ok=True)
        (here / folder / "my_models.py").write_text(code)
        return plan_with(here, f"{folder}/{entry}").cells[0].id

    first = id_of("a", MLP)
    assert id_of("b", MLP) == first
    assert id_of("a", MLP + "# another\n") != first
    assert id_of("a", MLP + "\ndef other(num_classes): return mlp(num_classes)\n", "my_models.py:other") != first


def test_two_files_of_one_name_do_not_mix(here: Path) -> None:
    for folder, width in (("a", 4), ("b", 16)):
        (here / folder).mkdir()
        (here / folder / "net.py").write_text(MLP.replace("width=8", f"width={width}"))
    plan = plan_with(here, *({"factory": f"{folder}/net.py:mlp", "label": folder} for folder in "ab"))
    for _ in range(2):  # in turn, as one worker meets them
        widths = [load_factory(model)(10)[1].out_features for model in plan.spec.students]
        assert widths == [4, 16]


def test_a_stage_with_code_survives_json(here: Path) -> None:
    (here / "my_models.py").write_text(MLP)
    (cell,) = plan_with(here, "my_models.py:mlp").cells
    again = stage_from_json(stage_to_json(cell))
    assert again == cell
    assert again.id == cell.id


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("nowhere.py:mlp", "no such file: .*/nowhere.py"),
        ("no_such_package.nets:mlp", "there is no module 'no_such_package'"),
        ("torch.py:mlp", "would hide the installed module 'torch': rename it"),
        ("kd.py:mlp", "would hide the installed module 'kd': rename it"),
        ("latin.py:mlp", "latin.py: cannot be read"),
        ("long.py:mlp", r"100,001 characters of code are too many to carry \(at most 100,000\): install it"),
    ],
)
def test_code_that_cannot_be_had_is_one_clear_line(here: Path, factory: str, reason: str) -> None:
    for name in ("torch.py", "kd.py"):
        (here / name).write_text(MLP)
    (here / "latin.py").write_bytes(b"# caf\xe9\n")
    (here / "long.py").write_text("#" * 100_001)
    with pytest.raises(UserError, match=f"^factory {factory}: .*{reason}"):
        find_code(factory)


@pytest.mark.parametrize(
    ("code", "function", "reason"),
    [
        ("import sys\nsys.exit(0)\n", "mlp", "its code cannot be imported: SystemExit"),
        ("import beside\n" + MLP, "mlp", "it imports beside from .*beside.py, which does not travel with it: put both"),
        ("open(__file__)\n" + MLP, "mlp", "its code cannot be imported: FileNotFoundError: .*<carried>/my_models.py"),
        ("import no_such_thing\n", "mlp", "its code cannot be imported: ModuleNotFoundError: No module named 'no_such"),
        ("def broken(:\n", "mlp", "its code cannot be imported: SyntaxError"),
        (MLP, "mpl", "the module has no function 'mpl'"),
        ("mlp = 3\n", "mlp", "the module has no function 'mlp'"),
    ],
)
def test_code_that_does_not_work_is_one_clear_line_before_anything_runs(
    here: Path, code: str, function: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "my_models.py").write_text(code)
    (here / "beside.py").write_text("WIDTH = 3\n")
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    plan = plan_with(here, f"my_models.py:{function}")
    with pytest.raises(UserError, match=f"factory my_models.py:{function}: {reason}"):
        inspect_models(plan)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"factory": "my_models.py"}, r"factory 'my_models.py': expected FILE.py:FUNCTION or MODULE:FUNCTION"),
        ({"factory": "my_models.py:mlp", "name": "resnet18"}, "give name or factory, not both"),
        ({"factory": "my_models.py:mlp", "pretrained": True}, "pretrained is for timm's models"),
        ({"name": "resnet18", "pretrained": True, "checkpoint": "x.pth"}, "give pretrained or checkpoint, not both"),
        ({"name": "resnet18", "normalize": {"mean": [0.5], "std": [0.2, 0.2]}}, "mean has 1 channels and std 2"),
        ({"name": "resnet18", "normalize": {"mean": 0.5, "std": 0}}, r"normalize.std.*greater than 0"),
        ({"name": "resnet18", "normalize": {"mean": [0, 0, 0], "std": [1, 1, 1]}}, "has 3 channels, digits has 1"),
    ],
)
def test_a_wrong_entry_is_named(here: Path, entry: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=rf"students.0.*{reason}"):
        plan_with(here, entry)


def test_a_model_may_be_named_by_its_spec_alone() -> None:
    assert ModelSpec.model_validate("my_models.py:mlp").shown == "mlp"
    assert ModelSpec.model_validate("resnet18").factory is None
