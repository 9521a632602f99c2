"""A grid's plan as it lies on a storage. Needs neither Ray nor torch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from grid.contract.files.layout import plan_file
from grid.contract.plan import parse_plan as parse_document
from grid.plan import Plan, Stage, make_plan
from grid.spec.dataset import DatasetSpec
from grid.spec.grid import GridSpec
from grid.store.store import Store


@dataclass(frozen=True)
class Planned:
    """A grid's plan as it lies on the storage."""

    name: str
    launched_at: datetime
    kinds: dict[str, str]
    """Of its stages, by id, in the plan's order."""
    plan: Plan | None
    """Made again from its spec; None where another version of this program wrote it, which called the stages
    otherwise."""

    @cached_property
    def stages(self) -> dict[str, Stage]:
        return {stage.id: stage for stage in self.plan.stages} if self.plan is not None else {}


def grid_name(asked: str) -> str:
    """What a grid file calls its grid; of anything else, the text itself. Raises UserError as reading a grid does."""
    path = Path(asked)
    if path.suffix not in (".yaml", ".yml", ".json"):
        return asked
    from grid.read.grid_file import find_grid, read_grid

    return str(read_grid(find_grid(asked))["name"])


def launched_at(plan: bytes) -> datetime:
    """Raises ValueError with the reason that it is no plan."""
    return parse_document(plan).launched_at


def images_of_last_launch(spec: GridSpec, store: Store) -> DatasetSpec | None:
    """The grid's data set with the images that it was last launched with on a storage, for one that does not say where
    its images are; None where it says so, or the storage does not know."""
    if not spec.dataset.is_downloaded:
        return None
    try:
        planned = parse_plan(store.read(plan_file(spec.name)), spec.name)
    except (OSError, ValueError):
        return None
    then = planned.plan.spec.dataset if planned.plan is not None else None
    if then is None or then.name != spec.dataset.name:
        return None
    return spec.dataset.model_copy(update={"data": then.data, "parquet": then.parquet, "facts": then.facts})


def parse_plan(data: bytes, name: str) -> Planned:
    """Raises ValueError with the reason it is none."""
    document = parse_document(data)
    kinds, at = document.kinds, document.launched_at
    try:
        plan = make_plan(GridSpec.model_validate(document.spec))
    except Exception:  # whatever an odd spec makes the planning raise, its stages are told of by their ids
        return Planned(name, at, kinds, None)
    return Planned(name, at, kinds, plan if {stage.id for stage in plan.stages} == kinds.keys() else None)
