"""The base of every spec, and its errors in one line."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError

from grid.contract.credentials import without_place
from grid.contract.text import hidden_character, on_one_line

SHOWN = 100  # characters of what was given


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _name(text: str) -> str:
    code = hidden_character(text)
    if code is not None:
        raise ValueError(f"{shortened(text)}: has the character {code}, which acts on the text around it: leave it out")
    return text


def _line(text: str) -> str:
    return _name(" ".join(text.split()))


# What tables, pictures and terminals show. A line may be written over several in YAML.
Name = Annotated[str, AfterValidator(_name)]
Line = Annotated[str, AfterValidator(_line)]


def first_twice(values: Iterable[Hashable]) -> Any:
    """The first value that was there before, or None."""
    seen: set[Hashable] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def shortened(value: Any) -> str:
    """What was given, as Python writes it, but not all of a thousand letters."""
    text = on_one_line(repr(value))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text):,} characters)"


def one_or_many(value: Any) -> Any:
    """What has one value may be written without brackets."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def path_alone(value: str | None) -> str | None:
    """For what is read from disk alone. Raises ValueError for a URL, which may hold credentials."""
    if value is not None and "://" in value:
        raise ValueError(
            f"{without_place(value)} is a URL, and only files are read here: download it and give its path"
        )
    return value


def describe(error: ValidationError, root: Any, *, prefix: str = "") -> str:
    """The first problem of a validation error on one line: where, what, and for an unknown key the nearest known."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path = [str(part) for part in first["loc"]]
    where = ".".join(on_one_line(part)[:SHOWN] for part in ([prefix, *path] if prefix else path))
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_keys(root, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        text = f"{where}: unknown key; {hint}"
    else:
        message = on_one_line(str(first["msg"])).removeprefix("Value error, ")
        given = first.get("input")
        shown = "" if first["type"] == "value_error" or isinstance(given, dict | list) else f" (got {shortened(given)})"
        text = f"{where}: {message}{shown}" if where else message
    more = len(problems) - 1
    return text + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")


def _known_keys(root: Any, path: list[str]) -> list[str]:
    """The keys allowed at a path of the schema, read from its JSON schema."""
    schema = TypeAdapter(root).json_schema()
    definitions = schema.get("$defs", {})

    def resolve(node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node or "anyOf" in node:
            # Of alternatives, the one with keys: the other is null.
            node = next((option for option in node.get("anyOf", []) if "$ref" in option), node)
            if "$ref" not in node:
                break
            node = definitions[node["$ref"].rsplit("/", 1)[-1]]
        return node

    node = resolve(schema)
    for part in path:
        child = node["items"] if part.isdigit() else node.get("properties", {}).get(part, {})
        node = resolve(child)
    return list(node.get("properties", {}))
