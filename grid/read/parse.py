"""From what a grid file or `--set` says to plain values: safe YAML or JSON, read within bounds, one clear line for
whatever is wrong.

A grid file may come from a stranger. A few lines of YAML whose aliases repeat each other stand for billions of values;
brackets within brackets, or a number of a thousand digits, end in an error far from their cause. So what a text stands
for is counted before it is built.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import ConstructorError

from grid.contract.files.local_files import OddFileError, read_local
from grid.contract.text import on_one_line
from grid.errors import UserError

MAX_BYTES = 10 * 2**20
MAX_VALUES = 500_000
MAX_DEPTH = 32
# Seeds are below it, and everything else is far below.
WHOLE_LIMIT = 2**63
WHOLE_DIGITS = 100  # however it is written: 64 binary digits and what stands between them

if TYPE_CHECKING:
    from yaml import SafeLoader as _Safe
else:
    # By libyaml, a hundred times as fast, unless PyYAML was built without it.
    _Safe = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Safe):
    """Safe YAML that reads 1e-3 as a number (YAML 1.2 does; PyYAML wants 1.0e-3) and refuses a key given twice."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # of a value that is not what its tag or its form says, such as 2024-02-31
            given = f" {node.value!r}" if isinstance(node.value, str) and len(node.value) <= WHOLE_DIGITS else ""
            kind = node.tag.rpartition(":")[2]
            raise ConstructorError(None, None, f"{kind}{given} is no such value: {error}", node.start_mark) from None


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            written = key_node.value if isinstance(key_node, yaml.ScalarNode) else "here"
            problem = f"the key {written} is not text ({type(key).__name__}): put it in quotes, if it is meant"
            raise ConstructorError(None, None, problem, key_node.start_mark)
        if key in seen:
            raise ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return _Safe.construct_mapping(loader, node, deep=True)


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    if len(node.value) <= WHOLE_DIGITS:
        value = _Safe.construct_yaml_int(loader, node)
        if abs(value) < WHOLE_LIMIT:
            return value
    raise ConstructorError(None, None, _too_large(node.value), node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)


def parse_yaml(text: str, *, what: str) -> Any:
    """Raises UserError with the line of the fault."""
    try:
        _count(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        if mark and problem == "found character that cannot start any token":  # libyaml does not say which: a tab, say
            problem = f"found {text.splitlines()[mark.line][mark.column :][:1]!r} that cannot start any token"
        raise UserError(f"{what}{where}: malformed YAML: {on_one_line(problem)}") from None
    except UnicodeError as error:
        raise UserError(f"{what}: not text in UTF-8: {error}") from None


def _count(text: str) -> None:
    """Raises ConstructorError at the place from where on a text stands for too much. An alias counts as often as what
    it stands for: it is cheap where it is written, and not where it is read."""
    sizes: dict[str, int | None] = {}  # of what has an anchor; None while it is being read
    opened: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=_Loader):
        mark: Any = event.start_mark  # libyaml's have a class of their own
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), 1)
            if size is None:
                raise ConstructorError(None, None, f"*{event.anchor} is part of what it stands for", mark)
            total += size
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, total))
            if event.anchor is not None:
                sizes[event.anchor] = None
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
        if len(opened) > MAX_DEPTH:
            raise ConstructorError(None, None, f"more than {MAX_DEPTH} levels within each other", mark)
        if total > MAX_VALUES:
            problem = f"more than {MAX_VALUES:,} values, aliases (*) written out: leave some out"
            raise ConstructorError(None, None, problem, mark)


def parse_json(text: str, *, what: str) -> Any:
    """Raises UserError, as `parse_yaml` does."""
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_json_whole)
    except RecursionError:
        raise UserError(f"{what}: malformed JSON: more than {MAX_DEPTH} levels within each other") from None
    except ValueError as error:
        raise UserError(f"{what}: malformed JSON: {on_one_line(str(error))}") from None
    level, total, depth = [value], 0, 0
    while level:
        total, depth = total + len(level), depth + 1
        if total > MAX_VALUES:
            raise UserError(f"{what}: malformed JSON: more than {MAX_VALUES:,} values: leave some out")
        level = [item for one in level if isinstance(one, dict | list) for item in _items(one)]
        if level and depth > MAX_DEPTH:
            raise UserError(f"{what}: malformed JSON: more than {MAX_DEPTH} levels within each other")
    return value


def _items(collection: dict[str, Any] | list[Any]) -> list[Any]:
    return [*collection.values()] if isinstance(collection, dict) else collection


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} is given twice")
        found[key] = value
    return found


def _json_whole(digits: str) -> int:
    if len(digits) > WHOLE_DIGITS or abs(int(digits)) >= WHOLE_LIMIT:
        raise ValueError(_too_large(digits))
    return int(digits)


def _too_large(digits: str) -> str:
    shown = digits if len(digits) <= 20 else f"{digits[:10]}... ({len(digits):,} characters)"
    return f"the whole number {shown} is too large: they go up to 2^63 - 1"


def read_text(path: Path, *, what: str) -> str:
    """A file's text. Raises UserError for what is no file of a bearable size, too: a pipe that nobody writes to would
    be waited for, and a device read, for ever."""
    try:
        return read_local(str(path), MAX_BYTES).decode()
    except OddFileError as error:
        raise UserError(f"{what}: {error.strerror}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{what}: cannot be read: {error}") from None
