"""Methods of distillation, one a file: an explicit table, which tests walk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kd.methods.decoupled import Decoupled
from kd.methods.method import Method
from kd.methods.soft_targets import SoftTargets

METHODS: dict[str, type[Method]] = {method.name: method for method in (SoftTargets, Decoupled)}


def method_of(name: str, params: Mapping[str, Any]) -> Method:
    """The method of this name with these parameters, all of them. Raises ValueError for an unknown name or a value that
    is out of bounds, and TypeError for parameters that are not its own."""
    if name not in METHODS:
        raise ValueError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name](**params)
