"""A plan is read once, into plain values."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from grid.contract.plan import OtherVersionError, PlanDocument, parse_plan

PLAN: dict[str, Any] = {
    "schema_version": 1,
    "written_at": "2026-05-04T14:00:00+02:00",
    "stages": [{"id": "a1", "kind": "dataset"}, {"id": "b2", "kind": "cell"}],
    "spec": {"name": "tiny"},
    "rows": [{"kind": "cell", "stage_id": "b2"}],
}


def parsed(**facts: Any) -> PlanDocument:
    return parse_plan(json.dumps({**PLAN, **facts}).encode())


def test_a_plan_says_when_what_and_of_which_spec() -> None:
    kinds = {"a1": "dataset", "b2": "cell"}
    assert parsed() == PlanDocument(datetime(2026, 5, 4, 12, tzinfo=UTC), kinds, PLAN["spec"], PLAN["rows"])


def test_the_spec_and_the_rows_are_for_their_readers_to_judge() -> None:
    document = parsed(spec=7, rows="rows")
    assert (document.spec, document.rows) == (7, "rows")
    bare = parse_plan(json.dumps({name: PLAN[name] for name in ("schema_version", "written_at", "stages")}).encode())
    assert (bare.spec, bare.rows) == (None, None)


def test_another_version_is_told_from_damage() -> None:
    with pytest.raises(OtherVersionError):
        parsed(schema_version=2)
    with pytest.raises(ValueError, match=r"^not a plan: it has no stages$"):
        parsed(stages=[], written_at="never")
    with pytest.raises(ValueError, match=r"^not a plan: 'never' is no time of ISO 8601$"):
        parsed(written_at="never")
