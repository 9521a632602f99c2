"""A stage's id: a hash of what is computed, never of where.

The payload is JSON in one canonical form, so that the id does not depend on the order of keys, on 4 against 4.0, on
PYTHONHASHSEED, or on whether a default was spelled out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

# 64 bits: among ten thousand ids, the chance that any two collide is under 3e-12.
ID_HEX_DIGITS = 16


def canonical(value: Any) -> Any:
    """Plain JSON values with whole floats as integers. Raises ValueError for what JSON cannot say exactly."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no place in an id")
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    raise ValueError(f"{value!r} of type {type(value).__name__} has no place in an id")


def canonical_json(payload: Mapping[str, Any]) -> str:
    return json.dumps(canonical(payload), sort_keys=True, separators=(",", ":"), allow_nan=False)


def stage_id(payload: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(payload).encode()).hexdigest()[:ID_HEX_DIGITS]


def without_defaults(instance: Any) -> dict[str, Any]:
    """A dataclass instance as a dict of what differs from its defaults, so that a new option leaves old ids alone."""
    differing: dict[str, Any] = {}
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if value == default:
            continue
        differing[field.name] = without_defaults(value) if dataclasses.is_dataclass(value) else value
    return differing
