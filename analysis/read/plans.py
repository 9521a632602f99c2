"""The plans of a storage: which grids were launched, and what each planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from analysis.read.schema import ROW
from analysis.read.storage import Reader, said
from grid.contract import plan as contract
from grid.contract.files.layout import plan_file

# What a study's figures are of, and which of them must be there.
LABELS = {"pairs": ("teacher", "student"), "models": ("model",)}
FIGURES = {
    "pairs": ("baseline", "distilled", "retention", "compression", "compression_size", "speedup"),
    "models": ("accuracy", "parameters", "size_mb", "inference_ms", "efficiency"),
}
NEEDED = ("baseline", "distilled")


@dataclass(frozen=True)
class StoredPlan:
    """A grid's plan."""

    storage: str
    name: str
    launched_at: datetime
    spec: dict[str, Any]
    rows: pl.DataFrame
    """With the columns of ROW."""
    kinds: dict[str, str]
    """Of every stage, by id."""
    problem: str | None = None
    """What of it cannot be used."""


def read_plans(reader: Reader, names: Sequence[str] | None = None) -> tuple[list[StoredPlan], list[str]]:
    """The plans of grids of these names, or of all, the one launched last being last, and what could not be read. A
    grid that lies in several storages with the same stages is there once."""
    found: dict[tuple[str, frozenset[str]], StoredPlan] = {}
    problems: list[str] = []
    for storage, one in reader.of_each().items():
        there = names if names is not None else one.grids()
        paths = {plan_file(name): name for name in there}
        unread: list[str] = []
        for path, data in one.read_many([*paths], unread).items():
            try:
                plan = parse_plan(data, storage=storage, name=paths[path])
            except Exception as error:  # whatever is wrong with one plan, the others are shown
                problems.append(f"{storage}/{path}: {said(error)}; launch the grid again")
                continue
            if plan.problem is not None:
                problems.append(f"{storage}/{path}: {plan.problem}")
            key = (plan.name, frozenset(plan.kinds))
            if key not in found or found[key].launched_at < plan.launched_at:
                found[key] = plan
        problems += [f"--storage {storage}: {line}" for line in unread]
    return sorted(found.values(), key=lambda plan: (plan.launched_at, plan.name)), problems


def parse_plan(data: bytes, *, storage: str, name: str) -> StoredPlan:
    """Raises ValueError with the reason it is none."""
    plan = contract.parse_plan(data)
    if plan.rows is None:
        raise contract.OtherVersionError
    kinds, spec = plan.kinds, plan.spec
    try:
        rows = pl.DataFrame(plan.rows, schema=ROW)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"not a plan: {said(error)}") from None
    for stage_id, kind in rows.select("stage_id", "kind").iter_rows():
        if kind not in ("teacher", "cell") or kinds.get(stage_id) != kind:
            raise ValueError(f"not a plan: it has a row of {stage_id!r}, which is no teacher or cell of it")
    if not isinstance(spec, dict) or not isinstance(spec.get("dataset"), dict):
        raise ValueError("not a plan: its spec has no data set")
    if not isinstance(spec["dataset"].get("name"), str):
        raise ValueError("not a plan: its data set has no name")
    problem = None
    try:
        spec = {**spec, "published": _published(spec.get("published"))}
    except ValueError as error:
        spec, problem = {**spec, "published": None}, f"its published figures cannot be read: {error}"
    return StoredPlan(storage, name, plan.launched_at, spec, rows, kinds, problem)


def _published(study: Any) -> dict[str, Any] | None:
    """A study's figures as the grid's file gave them. Raises ValueError for what they cannot be."""
    if study is None:
        return None
    if not isinstance(study, dict):
        raise ValueError("not an object of JSON")
    for name in ("study", "protocol"):
        if not isinstance(study.get(name), str):
            raise ValueError(f"its {name} is no text")
    parts = {part: study[part] for part in LABELS if part in study}
    for part, lines in parts.items():
        if not isinstance(lines, list):
            raise ValueError(f"its {part} are no list")
    return {**study, **{part: [_figures(part, line) for line in lines] for part, lines in parts.items()}}


def _figures(part: str, line: Any) -> dict[str, Any]:
    """One line of a study, None for what it does not state."""
    given = line if isinstance(line, dict) else {}
    for name in LABELS[part]:
        if not isinstance(given.get(name), str):
            raise ValueError(f"one of its {part} has no {name}")
    for name in FIGURES[part]:
        figure = given.get(name)
        is_number = isinstance(figure, int | float) and not isinstance(figure, bool)
        if not is_number and (figure is not None or name in NEEDED):
            raise ValueError(f"one of its {part} has a {name} that is no number")
    if given.get("mode") not in (None, "baseline", "distilled"):
        raise ValueError(f"one of its {part} has a mode that there is none of")
    return {"mode": None, **dict.fromkeys(FIGURES[part]), **given}
