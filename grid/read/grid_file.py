"""Read grid files: their values, `--set` overrides, one clear line for whatever is wrong."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from grid.errors import UserError
from grid.read.code import find_code
from grid.read.datasets import located
from grid.read.parse import MAX_DEPTH, parse_json, parse_yaml, read_text
from grid.read.weights import user_weights_sha256
from grid.spec.grid import GridSpec
from grid.spec.model import ModelSpec
from grid.spec.strict import describe

GRIDS = Path(__file__).parents[1] / "grids"


def named_grids() -> dict[str, Path]:
    return {path.stem: path for path in sorted(GRIDS.glob("*.yaml"))}


def find_grid(grid: str) -> Path:
    """A grid by name, or the path of a .yaml file."""
    names = named_grids()
    if grid in names:
        return names[grid]
    path = Path(grid)
    if path.suffix in (".yaml", ".yml", ".json") or (os.path.exists(path) and not os.path.isdir(path)):
        if not os.path.exists(path):
            raise UserError(f"grid file {grid}: no such file")
        return path
    near = difflib.get_close_matches(grid, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"unknown grid {grid!r}: {hint}known: {', '.join(names)}; or give the path of a .yaml file")


def load_grid(grid: str, overrides: Sequence[str] = (), *, data: str | None = None) -> GridSpec:
    """The named grid or file, with `key.path=value` overrides applied before anything is checked; its images (`--data`:
    in that folder), its models' code and checkpoints are found."""
    path = find_grid(grid)
    raw = read_grid(path)
    for override in overrides:
        _apply(raw, override)
    what = f"grid {path.stem}"
    spec = spec_from_dict(raw, what=what)
    dataset = located(spec.dataset, data)
    if dataset != spec.dataset:
        # Checked anew, against the facts.
        spec = spec_from_dict({**raw, "dataset": json.loads(dataset.model_dump_json())}, what=what)
    found = {axis: tuple(map(_found, getattr(spec, axis))) for axis in ("teachers", "students")}
    return spec.model_copy(update=found)


def read_grid(path: Path) -> dict[Any, Any]:
    """A grid file's keys and values, unchecked but for being such; one without a name has the file's."""
    what = f"grid file {path}"
    parse = parse_json if path.suffix == ".json" else parse_yaml
    raw = parse(read_text(path, what=what), what=what)
    if not isinstance(raw, dict):
        raise UserError(f"{what}: expected keys and values, found {type(raw).__name__}")
    return {"name": path.stem, **raw}


def _found(model: ModelSpec) -> ModelSpec:
    """The model with its code, and the hash of its checkpoint. Raises UserError where they are not there."""
    facts: dict[str, Any] = {}
    if model.factory is not None and model.code is None:
        facts["code"] = find_code(model.factory)
    if model.checkpoint is not None and model.checkpoint_sha256 is None:
        facts["checkpoint_sha256"] = user_weights_sha256(model.checkpoint)
    return model.model_copy(update=facts)


def spec_from_dict(raw: dict[Any, Any], *, what: str) -> GridSpec:
    """Strict: a string is no number, true is no seed. Raises UserError on the first problem."""
    try:
        # Through JSON, whose strict mode still takes a list for a tuple and 4 for 4.0.
        return GridSpec.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        raise UserError(f"{what}: {describe(error, GridSpec)}") from None


def _apply(raw: dict[Any, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override}: expected KEY.PATH=VALUE, such as recipe.epochs=2")
    value = parse_yaml(text, what=f"--set {override}:")
    *parents, last = key.strip().split(".")
    if len(parents) > MAX_DEPTH:
        raise UserError(f"--set: a key of {len(parents) + 1} levels: the deepest that there is has a few")
    node: Any = raw
    for depth, part in enumerate(parents):
        node = _item(node, part, override) if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(node, dict | list):
            at = ".".join(parents[: depth + 1])
            raise UserError(f"--set {override}: {at} is a single value here ({node!r}), it has no {last!r}")
    if isinstance(node, list):
        _item(node, last, override)
        node[int(last)] = value
    else:
        node[last] = value


def _item(items: list[Any], part: str, override: str) -> Any:
    if not part.isdigit() or int(part) >= len(items):
        raise UserError(f"--set {override}: {part!r} is not one of the {len(items)} entries (0 to {len(items) - 1})")
    return items[int(part)]
