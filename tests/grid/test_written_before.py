"""A storage of before files were named by their hash is read, and gone on from, with nothing computed again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from analysis import load_grid
from analysis.cli import main
from grid.contract.record import CURVE, WEIGHTS, curve_file, weights_file
from grid.plan import Plan, make_plan
from grid.read.grid_file import spec_from_dict
from grid.store.standing import look, without_damaged_teachers
from grid.store.store import Store
from grid.watch.signs import GridReader
from grid.watch.status import grid_status
from grid.work.execute import Runtime
from tests.conftest import VIT, tiny_grid
from tests.grid.running import train, weights

BEFORE = Path(__file__).parent / "written_before"
NAME = "vit_tiny_patch16_224"
GRID = tiny_grid(
    teachers=[{"label": "ViT-T", "name": NAME, "args": VIT}],
    students=[{"label": "ViT-S", "name": NAME, "args": {**VIT, "embed_dim": 8}}],
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    shutil.copytree(BEFORE, tmp_path / "runs")
    return Store(str(tmp_path / "runs"))


@pytest.fixture
def plan() -> Plan:
    return make_plan(spec_from_dict(GRID, what="grid tiny"))


def files(store: Store) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(store.url)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in Path(store.url).rglob("*")
        if path.is_file()
    }


def test_what_is_done_stays_so_and_the_rest_is_gone_on_with(
    store: Store, plan: Plan, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    (*done, last), before = plan.stages, files(store)
    stands = look(plan, store)
    assert stands.done == {stage.id for stage in done}
    assert (stands.waits, stands.lines) == (frozenset(), ())
    assert without_damaged_teachers(plan, store, stands) == stands
    assert train(plan.cells[-1], store, runtime) is None
    assert caplog.messages == [], "its checkpoint is gone on from"
    assert look(plan, store).done == {stage.id for stage in plan.stages}
    after = files(store)
    assert {name for name in before if after.get(name) != before[name]} == {
        f"{last.folder}/checkpoint.pt",
        f"{last.folder}/progress.json",
    }
    assert weights(store, plan.cells[-1]).keys() == weights(store, plan.cells[0]).keys()
    assert weights_file(store.record(plan.cells[0])) == WEIGHTS
    assert curve_file(store.record(plan.cells[0])) == CURVE


def test_the_status_the_analysis_and_an_export_read_it(
    store: Store, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = GridReader(store, "tiny").read()
    assert facts.problems == ()
    states = [stage.state for stage in grid_status(facts, facts.planned.launched_at).stages]
    assert states[:-1] == ["done"] * 6
    grid = load_grid(store.url, "tiny")
    assert grid.cells["status"].to_list().count("done") == 4
    assert grid.curves()["stage_id"].n_unique() == 4
    assert grid.problems == []
    monkeypatch.setattr("grid.publish.folder.missing_packages", lambda: ["onnx"])
    to = str(tmp_path / "published")
    assert main(["export", "tiny", "--storage", store.url, "--student", "ViT-S", "--mode", "baseline", "--to", to]) == 0
    assert (tmp_path / "published" / "model.safetensors").exists()


@pytest.mark.parametrize("file", [WEIGHTS, CURVE])
def test_what_lacks_a_file_is_computed_again(store: Store, plan: Plan, runtime: Runtime, file: str) -> None:
    cell = plan.cells[0]
    os.unlink(f"{store.url}/{cell.folder}/{file}")
    stands = look(plan, store)
    assert cell.id not in stands.done
    place = store.location(f"{cell.folder}/{file}")
    assert stands.lines == (f"{place}: is missing, though its record names it; it is computed again",)
    assert train(cell, store, runtime) is None
    assert cell.id in look(plan, store).done
