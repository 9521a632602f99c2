"""Nothing on a storage, in a grid's file or in a name can run code or leave the storage."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest

import launch
from analysis import cli
from grid.contract.files.layout import RECORD
from grid.errors import UserError
from grid.plan import Plan
from grid.read.grid_file import load_grid, spec_from_dict
from grid.store.store import CHECKPOINT, IDENTITY, Store
from grid.work.execute import Runtime
from kd.checkpoint import CheckpointError
from kd.models.weights import read_weights
from tests.conftest import tiny_grid
from tests.grid.running import cell_of, compute, prepare, train, weights_path
from tests.launching import write_grid


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (os.mkdir, (str(self.canary),))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def test_the_canary_sings(canary: Path) -> None:
    pickle.loads(pickle.dumps(Evil(canary)))
    assert canary.exists()


@pytest.mark.long
def test_nothing_that_a_stage_reads_is_unpickled(tiny_plan: Callable[..., Plan], tmp_path: Path, canary: Path) -> None:
    """Every file of the stages before a cell, one after the other: the cell fails saying so, or makes it anew."""
    plan, store, runtime = tiny_plan(), Store(str(tmp_path / "runs")), Runtime().here(threads=1)
    prepare(plan, store, runtime)
    cell, evil = cell_of(plan, "distilled"), pickle.dumps(Evil(canary))
    before = [
        f"{stage.folder}/{name}"
        for stage in (plan.data, *plan.teachers, *plan.logits)
        for name in store.names(stage.folder)
    ]
    read = [path for path in before if not path.endswith((RECORD, ".parquet", IDENTITY))]
    assert {Path(path).suffix for path in read} == {".npy", ".json", ".safetensors"}
    weights = weights_path(store, plan.teachers[0])
    for path in [*before, f"{cell.folder}/{CHECKPOINT}"]:
        good = store.read(path) if store.exists(path) else None
        store.write(path, evil)
        told = [train(cell, store, runtime), *(compute(stage, store, runtime) for stage in plan.logits)]
        if path == f"{plan.teachers[0].folder}/{RECORD}":
            assert all("not a record" in str(error) for error in told), (path, told)
        elif path == weights:
            assert told[0] is None, "its logits are there"
            assert "damaged: these are not the weights of its record" in str(told[1])
        else:
            assert told == [None, None], path  # made anew, or not needed
        if good is not None:
            store.write(path, good)
    assert not canary.exists()


def test_a_users_checkpoint_is_not_unpickled(tmp_path: Path, canary: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(pickle.dumps(Evil(canary)))
    with pytest.raises(CheckpointError, match="not a checkpoint that can be read without running code"):
        read_weights(file, what="checkpoint")
    assert not canary.exists()


@pytest.mark.parametrize("file", ["record.json", "curve-*.parquet", "plan.json"])
def test_the_analysis_unpickles_nothing(
    file: str, tiny_plan: Callable[..., Plan], tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from grid.store.plan_file import write_plan

    plan, store, runtime = (
        tiny_plan(teachers=[], modes=["baseline"], seeds=[0]),
        Store(str(tmp_path / "runs")),
        Runtime().here(threads=1),
    )
    prepare(plan, store, runtime)
    assert [train(cell, store, runtime) for cell in plan.cells] == [None, None]
    write_plan(plan, store)
    evil = pickle.dumps(Evil(canary))
    folder = "grids/tiny" if file == "plan.json" else plan.cells[0].folder
    (place,) = (name for name in store.names(folder) if fnmatch(name, file))
    store.write(f"{folder}/{place}", evil)
    status = cli.main(["curves", "tiny", "--storage", store.url])
    assert place in capsys.readouterr().err
    assert status == (2 if file == "plan.json" else 0)
    assert not canary.exists()


def test_a_grid_file_runs_no_code(tmp_path: Path, canary: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(f"name: !!python/object/apply:os.mkdir ['{canary}']\n")
    with pytest.raises(UserError, match="malformed YAML: could not determine a constructor for the tag"):
        load_grid(str(file))
    with pytest.raises(UserError, match="malformed YAML"):
        load_grid("digits", [f"description=!!python/object/apply:os.mkdir ['{canary}']"])
    assert not canary.exists()


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "a\0b", "..", ".hidden", ""])
def test_a_grids_name_cannot_leave_the_storage(name: str) -> None:
    with pytest.raises(UserError, match=r"name: .*(use letters, digits|has the character U\+0000)"):
        spec_from_dict(tiny_grid(name=name), what="grid")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "a\0b"])
def test_a_path_cannot_leave_the_storage(path: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "runs"))
    for ask in (store.read, store.exists, store.names, store.size, store.remove, store.remove_folder, store.local_file):
        with pytest.raises(ValueError, match="leaves the storage"):
            ask(path)
    with pytest.raises(ValueError, match="leaves the storage"):
        store.create(path, b"")


def test_the_analysis_reads_nothing_outside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "runs" / "grids").mkdir(parents=True)
    assert cli.main(["table", "../..", "--storage", str(tmp_path / "runs")]) == 2
    assert "'grids/../../plan.json' leaves the storage" in capsys.readouterr().err


@pytest.mark.parametrize(
    "checkpoint", ["https://me:hunter2@host/x.pth", "https://host/x.pth?X-Amz-Signature=hunter2", "s3://k:hunter2@b/x"]
)
def test_a_checkpoint_with_credentials_is_refused_and_not_repeated(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = {**tiny_grid()["teachers"][0], "checkpoint": checkpoint}
    assert launch.main(["--grid", write_grid(tmp_path, tiny_grid(teachers=[teacher]))]) == 2
    told = capsys.readouterr()
    assert "teachers.0.checkpoint: the URL holds a " in told.err
    assert "hunter2" not in told.err + told.out
