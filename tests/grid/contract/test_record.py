"""Both sides believe the same figures of a record."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any

import pytest

from analysis.read.load import parse_record
from grid.contract.record import FIELDS, FIGURES, METRIC_FIELDS, Record, contents, other_inputs, used_inputs
from grid.store.records import RecordError, make_record, record_from_json, record_to_json

WHOLE = {"schema_version": 1, "stage_id": "text", "status": "done", "test_top1_last": 0.5, "parameters": 7}


def read(**facts: Any) -> None:
    """As the grid and as the analysis does."""
    data = json.dumps({**WHOLE, **facts}).encode()
    with pytest.raises(RecordError) as ours:
        record_from_json(data)
    with pytest.raises(ValueError, match=r"^not a record: ") as theirs:
        parse_record(data, stage_id="text")
    assert str(ours.value) == str(theirs.value)
    raise ours.value


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"test_top1_last": 1e308}, "test_top1_last is 1e+308, outside of 0 to 1"),
        ({"test_top1_last": 1.01}, "test_top1_last is 1.01, outside of 0 to 1"),
        ({"val_ece_best": -0.1}, "val_ece_best is -0.1, outside of 0 to 1"),
        ({"best_test_top1": 80}, "best_test_top1 is 80, outside of 0 to 1"),
        ({"test_nll_last": 1e300}, "test_nll_last is 1e+300, outside of"),
        ({"parameters": -1}, "parameters is -1, outside of"),
        ({"parameters": 10**18}, "parameters is 1e+18, outside of"),
        ({"seconds_total": 1e308, "latency_ms": -2.0}, "latency_ms is -2, .*; seconds_total is 1e"),
        ({"parameters": 2**70}, "parameters is far too large a number"),
        ({"parameters": 10**400}, "parameters is far too large a number"),
        ({"parameters": 1.5}, "parameters is of type float, not int"),
        ({"parameters": True}, "parameters is of type bool, not int"),
        ({"kind": ["cell"]}, "kind is of type list, not str"),
        ({"versions": {}}, "versions is of type dict, not str"),
        ({"error": "\ud800"}, "not text in UTF-8"),
    ],
)
def test_figures_that_were_not_measured_are_refused_on_both_sides(facts: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError, match="^not a record: " + reason.replace("+", r"\+")):
        read(**facts)


def test_figures_at_their_ends_are_believed() -> None:
    ends = {name: FIELDS[name](end) for end in (0, 1) for name, (low, high) in FIGURES.items() if low <= end <= high}
    for facts in ({}, ends, {"test_ece_last": 1.0000001}):
        data = json.dumps({**WHOLE, **facts}).encode()
        assert parse_record(data, stage_id="text") == asdict(record_from_json(data))


def test_a_figure_out_of_its_range_is_not_written() -> None:
    with pytest.raises(ValueError, match=r"^test_nll_last is not finite$"):
        make_record({"stage_id": "text", "test_nll_last": float("nan")})
    with pytest.raises(ValueError, match="val_top1_last is 2, outside of 0 to 1"):
        make_record({"stage_id": "text", "val_top1_last": 2.0})


def test_every_figure_of_a_metric_has_a_field_of_its_own_in_their_order() -> None:
    assert [name for name in FIELDS if name in METRIC_FIELDS] == [*METRIC_FIELDS]
    assert {FIELDS[name] for name in METRIC_FIELDS} == {float}
    assert Record(test_nll_best=1.5).metric("test", "nll", "best") == 1.5


def test_every_field_is_a_plain_value_or_none() -> None:
    assert list(FIELDS) == [field.name for field in fields(Record)]
    assert set(FIELDS.values()) == {str, int, float, bool}
    assert {name for name, value in asdict(Record()).items() if value is not None} == {"schema_version"}


def test_a_record_stays_as_it_was_checked() -> None:
    record = Record(seed=1, alpha=1)
    assert type(record.alpha) is float
    with pytest.raises(FrozenInstanceError):
        record.seed = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="record field seed: expected int, got '0'"):
        replace(record, seed="0")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="alpha is not finite"):
        replace(record, alpha=float("inf"))


def test_a_record_is_written_as_it_always_was() -> None:
    lines = record_to_json(make_record({"kind": "cell", "temperature": 4, "stage_id": "text"})).decode().splitlines()
    assert lines[:4] == ["{", ' "schema_version": 1,', ' "stage_id": "text",', ' "kind": "cell",']
    assert ' "temperature": 4.0,' in lines
    assert ' "test_agreement_best": null,' in lines
    assert lines[-2:] == [' "recipe": null', "}"]
    assert len(lines) == len(FIELDS) + 2


OLDER = {"stage_id": "cell-1", "kind": "cell", "dataset_id": "data-1", "teacher_id": "teacher-1"}


@pytest.mark.parametrize(
    ("facts", "used"),
    [
        ({"inputs": '{"data-1": "d", "teacher-2": "u"}', "teacher_sha256": "old"}, {"data-1": "d", "teacher-2": "u"}),
        ({"dataset_fingerprint": "d", "teacher_sha256": "t"}, {"data-1": "d", "teacher-1": "t"}),
        ({"dataset_fingerprint": "d"}, {"data-1": "d"}),  # alone
        ({}, {}),  # of before anything was hashed
        ({"inputs": "[1]", "dataset_fingerprint": "d"}, {"data-1": "d"}),
        ({"inputs": '{"data-1": 7}', "dataset_fingerprint": "d"}, {"data-1": "d"}),
    ],
)
def test_what_was_used_is_told_by_the_id_of_each_input(facts: dict[str, str], used: dict[str, str]) -> None:
    assert used_inputs(vars(Record(**{**OLDER, **facts}))) == used


def test_a_stage_is_no_input_of_its_own() -> None:
    teacher = Record(stage_id="teacher-1", kind="teacher", teacher_id="teacher-1", teacher_sha256="t")
    data = Record(stage_id="data-1", kind="dataset", dataset_id="data-1", dataset_fingerprint="d")
    assert used_inputs(vars(teacher)) == used_inputs(vars(data)) == {}
    assert (contents(vars(data)), contents(vars(teacher))) == ("d", None)


def test_inputs_that_are_others_now_are_named() -> None:
    cell = Record(**OLDER, inputs='{"data-1": "d", "teacher-1": "t", "teacher-2": "u"}')
    there = {
        "data-1": Record(kind="dataset", dataset_fingerprint="d"),
        "teacher-1": Record(kind="teacher", weights_sha256="another"),
        "teacher-2": Record(kind="teacher", weights_sha256="another"),
        "teacher-3": Record(kind="teacher", weights_sha256="unused"),
    }
    assert other_inputs(cell, there) == ["teacher-1", "teacher-2"]
    assert other_inputs(cell, dict.fromkeys(there)) == []  # gone: nobody knows
