"""The result record: one flat JSON object a stage, one schema, versioned (`grid.contract.record` has its fields)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from grid.contract.record import FIELDS, SCHEMA_VERSION, check_figures, parse_record

Value = str | int | float | bool | None
Record = dict[str, Value]


class RecordError(ValueError):
    """Bytes that are no record, or one of a schema this version cannot read."""


def now() -> str:
    """As the fields `..._at` have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def make_record(values: Mapping[str, Value]) -> Record:
    """A whole record: every field present, None where it does not apply. Raises TypeError for a wrong name or type, and
    ValueError for a figure that cannot have been measured."""
    unknown = values.keys() - FIELDS.keys()
    if unknown:
        raise TypeError(f"not fields of a record: {', '.join(sorted(unknown))}")
    record: Record = dict.fromkeys(FIELDS)
    for name, value in {**values, "schema_version": SCHEMA_VERSION}.items():
        expected = FIELDS[name]
        if expected is float and type(value) is int:
            value = float(value)
        if value is not None and type(value) is not expected:
            raise TypeError(f"record field {name}: expected {expected.__name__}, got {value!r}")
        record[name] = value
    check_figures(record)
    return record


def record_to_json(record: Record) -> bytes:
    return json.dumps(record, indent=1).encode()


def record_from_json(data: bytes) -> Record:
    """Raises RecordError with the reason. Fields that a later version adds are absent from older records: None."""
    try:
        return parse_record(data)
    except ValueError as error:
        raise RecordError(str(error)) from None
