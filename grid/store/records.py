"""How result records are made, written and read; `grid.contract.record` has their fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from grid.contract.record import FIELDS, SCHEMA_VERSION, Record, parse_record

Value = str | int | float | bool | None


class RecordError(ValueError):
    """Bytes that are no record, or one of a schema this version cannot read."""


def now() -> str:
    """As the fields `..._at` have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def make_record(values: Mapping[str, Value]) -> Record:
    """The record of this version with these fields. Raises TypeError for a wrong name too."""
    unknown = values.keys() - FIELDS.keys()
    if unknown:
        raise TypeError(f"not fields of a record: {', '.join(sorted(unknown))}")
    fields: dict[str, Any] = {**values, "schema_version": SCHEMA_VERSION}
    return Record(**fields)


def record_to_json(record: Record) -> bytes:
    return json.dumps(asdict(record), indent=1).encode()


def record_from_json(data: bytes) -> Record:
    """Raises RecordError with the reason."""
    try:
        return parse_record(data)
    except ValueError as error:
        raise RecordError(str(error)) from None
