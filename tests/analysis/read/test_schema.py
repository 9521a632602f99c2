"""The reader's statement of what is in a storage is the writer's."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import polars as pl

from analysis.read import load, plans, schema
from analysis.shown import SHORT
from grid.contract.plan import NUMBERS, PLAN_SCHEMA_VERSION
from grid.contract.record import FIELDS
from grid.plan import Plan
from grid.spec.published import PublishedModel, PublishedPair
from grid.store.plan_file import write_plan
from grid.store.records import Value, make_record, record_from_json, record_to_json
from grid.store.store import Store
from tests.analysis.conftest import SyntheticGrid

ROOT = Path(__file__).parents[3]


def test_a_whole_record_fits_the_columns() -> None:
    samples: dict[type, Value] = {str: "text", int: 7, float: 0.5, bool: True}
    values = {name: samples[kind] for name, kind in FIELDS.items()} | {"status": "done"}
    row = load.parse_record(record_to_json(make_record(values)), stage_id="text")
    assert row == {**values, "schema_version": 1}
    assert pl.DataFrame([row], schema=schema.RECORD).null_count().sum_horizontal().item() == 0


def test_what_older_records_lack_reads_as_none() -> None:
    facts = {"schema_version": 1, "stage_id": "text", "status": "done", "latency_ms": 1.5, "latency_batch": 32}
    older = json.dumps(facts).encode()
    for row in (load.parse_record(older, stage_id="text"), asdict(record_from_json(older))):
        assert (row["latency_ms"], row["latency_batch"]) == (1.5, 32)
        assert (row["latency_runs"], row["throughput"]) == (None, None)


def test_the_plans_rows_are_the_columns_of_the_grid(tmp_path: Path, tiny_plan: Callable[..., Plan]) -> None:
    write_plan(tiny_plan(), Store(str(tmp_path / "real")))
    written = json.loads((tmp_path / "real/grids/tiny/plan.json").read_text())
    assert written["schema_version"] == PLAN_SCHEMA_VERSION
    assert {name for row in written["rows"] for name in row} == set(schema.ROW)

    by_hand = SyntheticGrid(tmp_path / "by hand").plan
    assert written.keys() == by_hand.keys()
    for kind in ("teacher", "cell"):
        keys = [{frozenset(row) for row in plan["rows"] if row["kind"] == kind} for plan in (written, by_hand)]
        assert keys[0] == keys[1]
    assert written["stages"][0].keys() == by_hand["stages"][0].keys()
    assert written["spec"]["dataset"]["name"] == by_hand["spec"]["dataset"]["name"] == "digits"


def test_nothing_in_the_analysis_spells_an_axis_out() -> None:
    """They are as many as the plan has: an axis more is a line of its contract."""
    spelled = set()
    for path in (ROOT / "analysis").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        words = {node.value for node in nodes if isinstance(node, ast.Constant)}
        spelled |= {(path.name, axis) for axis in NUMBERS if axis in words}
    assert spelled == {("shown.py", axis) for axis in SHORT}


def test_the_figures_of_a_study_are_those_that_a_grid_may_state() -> None:
    for part, stated in (("pairs", PublishedPair), ("models", PublishedModel)):
        read = {*plans.LABELS[part], *plans.FIGURES[part]}
        assert read == stated.model_fields.keys() - {"mode"}
        needed = {name for name, field in stated.model_fields.items() if field.is_required()}
        assert needed == read & {*plans.LABELS[part], *plans.NEEDED}
