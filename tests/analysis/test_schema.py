"""The reader's statement of what is in a storage is the writer's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import analysis.load
import analysis.schema
import grid.plan
import grid.records
from grid.plan import Plan
from grid.planned import write_plan
from grid.records import Value
from grid.store import Store
from tests.analysis.conftest import SyntheticGrid

POLARS = {str: pl.String, int: pl.Int64, float: pl.Float64, bool: pl.Boolean}


def test_the_columns_are_the_records_fields() -> None:
    assert list(analysis.schema.RECORD) == list(grid.records.FIELDS)


@pytest.mark.parametrize("name", grid.records.FIELDS)
def test_a_columns_type_is_its_fields(name: str) -> None:
    assert analysis.schema.RECORD[name] == POLARS[grid.records.FIELDS[name]]


def test_versions_metrics_and_folders_are_the_writers() -> None:
    assert analysis.schema.RECORD_SCHEMA_VERSION == grid.records.SCHEMA_VERSION
    assert analysis.schema.METRICS == grid.records.METRICS
    assert analysis.schema.POINTS == grid.records.POINTS
    assert analysis.load.FOLDERS.items() <= grid.plan.FOLDERS.items()


def test_a_whole_record_fits_the_columns() -> None:
    samples: dict[type, Value] = {str: "text", int: 7, float: 0.5, bool: True}
    values = {name: samples[kind] for name, kind in grid.records.FIELDS.items()} | {"status": "done"}
    row = analysis.load.parse_record(grid.records.record_to_json(grid.records.make_record(values)), stage_id="text")
    assert row == {**values, "schema_version": 1}
    assert pl.DataFrame([row], schema=analysis.schema.RECORD).null_count().sum_horizontal().item() == 0


def test_what_older_records_lack_reads_as_none() -> None:
    facts = {"schema_version": 1, "stage_id": "text", "status": "done", "latency_ms": 1.5, "latency_batch": 32}
    older = json.dumps(facts).encode()
    for row in (analysis.load.parse_record(older, stage_id="text"), grid.records.record_from_json(older)):
        assert (row["latency_ms"], row["latency_batch"]) == (1.5, 32)
        assert (row["latency_runs"], row["throughput"]) == (None, None)


def test_the_plans_rows_are_the_columns_of_the_grid(tmp_path: Path, tiny_plan: Callable[..., Plan]) -> None:
    write_plan(tiny_plan(), Store(str(tmp_path / "real")))
    written = json.loads((tmp_path / "real/grids/tiny/plan.json").read_text())
    assert written["schema_version"] == analysis.schema.PLAN_SCHEMA_VERSION
    assert {name for row in written["rows"] for name in row} == set(analysis.schema.ROW)

    by_hand = SyntheticGrid(tmp_path / "by hand").plan
    assert written.keys() == by_hand.keys()
    for kind in ("teacher", "cell"):
        keys = [{frozenset(row) for row in plan["rows"] if row["kind"] == kind} for plan in (written, by_hand)]
        assert keys[0] == keys[1]
    assert written["stages"][0].keys() == by_hand["stages"][0].keys()
    assert written["spec"]["dataset"]["name"] == by_hand["spec"]["dataset"]["name"] == "digits"
