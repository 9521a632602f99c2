"""What a grid file says of methods, and the settings, ids, titles and rows that follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grid.errors import UserError
from grid.plan import CellStage, Plan, make_plan
from grid.read.grid_file import spec_from_dict
from grid.store.plan_file import write_plan
from grid.store.store import Store
from kd.methods import METHODS
from kd.methods.method import Method
from tests.conftest import tiny_grid
from tests.kd.methods.own import OfEmbeddings, Smoothing

Planner = Callable[..., Plan]


def distilled(plan: Plan) -> list[CellStage]:
    return [cell for cell in plan.cells if cell.mode == "distilled"]


def planned(**changes: Any) -> Plan:
    """With neither temperature nor alpha of the grid's own, unless they are given."""
    raw = {name: value for name, value in tiny_grid().items() if name not in ("temperature", "alpha")}
    return make_plan(spec_from_dict(raw | changes, what="grid tiny"))


def refusal(**changes: Any) -> str:
    with pytest.raises(UserError) as refused:
        planned(**changes)
    return str(refused.value)


def test_kd_with_values_of_its_own_is_kd_with_the_grids() -> None:
    """Ids included, and whatever the order in which they are written."""
    grids = planned(temperature=[2, 4], alpha=[0.5, 0.9])
    own = planned(method={"name": "kd", "alpha": [0.5, 0.9], "temperature": [2, 4]})
    half = planned(method=[{"name": "kd", "temperature": [2, 4]}], alpha=[0.5, 0.9])
    assert {cell.id for cell in own.cells} == {cell.id for cell in grids.cells}
    assert [cell.id for cell in half.cells] == [cell.id for cell in grids.cells]
    assert planned(method="kd").cells == planned().cells == planned(temperature=4, alpha=0.5).cells


def test_its_payload_is_what_it_was_before_there_were_several() -> None:
    cell = distilled(planned(temperature=2, alpha=0.9))[0]
    payload = cell.spec_payload()
    assert {name: payload[name] for name in payload.keys() - {"model", "recipe", "seed", "mode"}} == {
        "method": "kd",
        "temperature": 2.0,
        "alpha": 0.9,
    }


def test_a_plan_is_read_back_from_what_it_wrote(tmp_path: Path) -> None:
    for changes in ({"method": {"name": "kd", "temperature": [2, 4], "alpha": 0.9}}, {"alpha": [0.1, 0.2]}):
        plan = planned(**changes)
        write_plan(plan, Store(str(tmp_path)))
        written = json.loads((tmp_path / "grids/tiny/plan.json").read_text())
        assert make_plan(spec_from_dict(written["spec"], what="grid tiny")).cells == plan.cells


def test_rows_carry_the_parameters(tmp_path: Path) -> None:
    write_plan(planned(temperature=[2, 4]), Store(str(tmp_path)))
    rows = json.loads((tmp_path / "grids/tiny/plan.json").read_text())["rows"]
    params = {row["params"] for row in rows if row.get("mode") == "distilled"}
    assert {json.dumps({"alpha": 0.5, "temperature": t}) for t in (2.0, 4.0)} == params
    assert {row["setting"] for row in rows if row["kind"] == "cell"} == {None}, "temperature and alpha stand alone"
    assert {row["params"] for row in rows if row.get("mode") == "baseline"} == {None}


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("kdd", "method.0: no method 'kdd'; did you mean 'kd'?"),
        (["kd", "kd"], "a setting is listed twice"),
        (["kd", {"name": "kd", "temperature": 4}], "a setting is listed twice"),
        ({"temperature": 4}, "expected a method's name, or its name and parameters"),
        (7, "7: expected a method's name, or its name and parameters"),
        ([], "method"),
        ({"name": "kd", "temprature": 4}, "kd.temprature: unknown key; did you mean 'temperature'?"),
        ({"name": "kd", "temperature": 0}, "temperature must be greater than 0, got 0"),
        ({"name": "kd", "temperature": 1e7}, "temperature must be at most 1e+06"),
        ({"name": "kd", "alpha": [0.5, 1.5]}, "alpha must be from 0 to 1, got 1.5"),
        ({"name": "kd", "alpha": "much"}, "kd.alpha: "),
        ({"name": "kd", "alpha": []}, "kd.alpha: an empty list has no settings"),
        ({"name": "kd", "alpha": [0.5, 0.50]}, "kd.alpha: a value is given twice"),
    ],
)
def test_what_is_no_method_is_refused(method: Any, told: str) -> None:
    assert told in refusal(method=method)


@pytest.mark.parametrize(("kind", "needs"), [(OfEmbeddings, "logits and embedding"), (Smoothing, "nothing")])
def test_a_method_that_needs_what_no_grid_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, kind: type[Method], needs: str
) -> None:
    monkeypatch.setitem(METHODS, kind.name, kind)
    told = f"method.1: method {kind.name} needs {needs} of the teacher; grids distil from logits alone so far"
    assert told in refusal(method=["kd", {"name": kind.name}])


def test_what_no_method_leaves_to_the_grid_is_refused() -> None:
    own = {"name": "kd", "temperature": 4, "alpha": 0.5}
    assert "temperature: no listed method leaves it to the grid (kd): give it with the method" in refusal(
        method=own, temperature=2
    )
    assert "alpha: no listed method leaves it to the grid" in refusal(method=own, alpha=0.5)


def test_a_grid_of_too_many_settings_is_refused_before_they_are_made() -> None:
    values = [float(i) for i in range(1, 1001)]
    assert "1,000,000 settings makes" in refusal(
        method={"name": "kd", "temperature": values, "alpha": [i / 1000 for i in range(1000)]}
    )
