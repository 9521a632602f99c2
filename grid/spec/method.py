"""How a student is distilled: what a grid file says of methods, and the settings that follow."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from itertools import product
from math import prod
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError, model_serializer, model_validator

from grid.spec.strict import Strict, describe, first_twice, one_or_many, shortened
from kd.methods import METHODS, method_of
from kd.methods.method import Method, Needs
from kd.methods.soft_targets import SoftTargets

# What a grid says once for all methods that leave it open: of kd alone, whose grids have always had it.
SHORTHAND = ("temperature", "alpha")
OF_SHORTHAND = SoftTargets.name

# What grids have of a teacher: no stage keeps its embeddings or maps, and no cell is distilled without any.
TARGETS = Needs.LOGITS

Value = float | int | bool | str


class Setting(Strict):
    """A method with a value for each of its parameters: one of the ways in which a pair is distilled."""

    method: str
    params: dict[str, Value]

    @cached_property
    def built(self) -> Method:
        return method_of(self.method, self.params)

    def payload(self) -> dict[str, Any]:
        """As an id knows it."""
        number = METHODS[self.method].version
        version = {"method_version": number} if number > 1 else {}
        if self.method == OF_SHORTHAND:
            return {"method": self.method, **self.params, **version}
        return {"method": self.method, "params": self.params, **version}


class MethodSpec(Strict):
    """An entry of a grid's `method`: a name, or a mapping with the method's own parameters, of which lists are crossed
    within the method."""

    name: str
    params: dict[str, tuple[Value, ...]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, given: Any) -> Any:
        if isinstance(given, str):
            given = {"name": given}
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            raise ValueError(f"{shortened(given)}: expected a method's name, or its name and parameters")
        name = given["name"]
        if name not in METHODS:
            near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METHODS)}"
            raise ValueError(f"no method {shortened(name)}; {hint}")
        if METHODS[name].needs != TARGETS:
            raise ValueError(
                f"method {name} needs {METHODS[name].needs} of the teacher; grids distil from {TARGETS} alone so far"
            )
        params = {key: one_or_many(value) for key, value in given.items() if key != "name"}
        return {"name": name, "params": _checked(name, params)}

    @model_serializer
    def _as_in_a_file(self) -> Any:
        if not self.params:
            return self.name
        return {"name": self.name, **{key: list(values) for key, values in self.params.items()}}

    @property
    def open(self) -> tuple[str, ...]:
        """What it leaves to the grid."""
        return tuple(key for key in SHORTHAND if self.name == OF_SHORTHAND and key not in self.params)

    def count(self, shorthand: Mapping[str, Sequence[Value]]) -> int:
        """How many settings it has. shorthand: the grid's own values."""
        return prod(len(values) for values in self._values(shorthand).values())

    def settings(self, shorthand: Mapping[str, Sequence[Value]]) -> list[Setting]:
        """The first parameter outermost. shorthand: as `count`."""
        values = self._values(shorthand)
        return [
            Setting(method=self.name, params=dict(zip(values, crossed, strict=True)))
            for crossed in product(*values.values())
        ]

    def _values(self, shorthand: Mapping[str, Sequence[Value]]) -> dict[str, Sequence[Value]]:
        given = {**{key: shorthand[key] for key in self.open}, **self.params}
        defaults = METHODS[self.name]().params
        return {key: given.get(key, (default,)) for key, default in defaults.items()}


def _checked(name: str, params: dict[str, Any]) -> dict[str, tuple[Value, ...]]:
    """Each value as the method's field has it. Raises ValueError."""
    found: dict[str, tuple[Value, ...]] = {}
    for key, values in params.items():
        if not values:
            raise ValueError(f"{name}.{key}: an empty list has no settings")
        checked = []
        for value in values:
            try:
                method = _adapter(name).validate_json(json.dumps({key: value}), strict=True)
            except (TypeError, ValueError) as error:
                told = describe(error, METHODS[name], prefix=name) if isinstance(error, ValidationError) else error
                raise ValueError(f"{told}") from None
            checked.append(getattr(method, key))
        if first_twice(checked) is not None:
            raise ValueError(f"{name}.{key}: a value is given twice")
        found[key] = tuple(checked)
    return found


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(METHODS[name])
