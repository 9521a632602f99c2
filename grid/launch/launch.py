"""One launch, as facts: what it was asked for, and what became of it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from grid.contract.files.layout import grid_folder
from grid.contract.program.version import code_version
from grid.plan import Plan, Stage
from grid.store.store import Store
from grid.work.execute import Runtime

if TYPE_CHECKING:
    from grid.cluster.session import Dashboard


@dataclass(frozen=True)
class Options:
    """On which Ray a launch runs."""

    address: str | None = None
    """Of a running one; None to start one here."""
    cpus: int | None = None
    """Of the Ray started here."""
    dashboard: Dashboard | None = None
    """Likewise."""


@dataclass(frozen=True)
class Launch:
    """A plan that is run, and where."""

    plan: Plan
    store: Store
    options: Options
    runtime: Runtime
    """As every stage's worker begins with."""
    scratch: str
    """Its folder on the storage, which goes with it."""

    @classmethod
    def of(cls, plan: Plan, store: Store, options: Options) -> Self:
        """Under a name of its own."""
        name, wanted = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}", plan.spec.resources
        scratch = f"{grid_folder(plan.spec.name)}/ray/{name}"
        runtime = Runtime(
            launch=name,
            code_version=code_version(),
            checkpoint_minutes=wanted.checkpoint_minutes,
            stall_minutes=wanted.stall_minutes,
            deterministic=wanted.deterministic,
            keep_predictions=wanted.keep_predictions,
            stop=f"{scratch}/stop",
        )
        return cls(plan, store, options, runtime, scratch)

    @property
    def name(self) -> str:
        return self.runtime.launch


@dataclass
class Outcome:
    """What a launch did."""

    plan: Plan
    reused: int
    """Stages that were done before."""
    done: int = 0
    failed: list[Stage] = field(default_factory=list)
    blocked: list[Stage] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    """By stage id, of failed and blocked stages."""
    interrupted: bool = False
    stopped_at: dict[str, str] = field(default_factory=dict)
    """By stage id, how far those were that an interruption ended."""
    lost_ray: str | None = None
    """How Ray was lost, where that interrupted it."""
    lost_workers: int = 0
    """How many were lost at stages that are done now."""
