"""How much a grid writes, and whether there is room for it."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping

from grid.contract.units import sized
from grid.errors import UserError
from grid.plan import Plan
from grid.store.store import Store


def check_room(plan: Plan, done: Collection[str], written: Mapping[str, int], store: Store) -> None:
    """Raises UserError where a storage on a disk has less room than what is not done yet will take. A checkpoint is of
    the weights and up to three more of their size, while a stage runs."""
    if not store.is_local:
        return
    left = [stage for stage in plan.stages if stage.id not in done]
    running = max((written[stage.id] for stage in left if stage.is_trained), default=0)
    needed = sum(written[stage.id] for stage in left) + 4 * running
    free = shutil.disk_usage(store.url).free
    if free < needed:
        raise UserError(
            f"--storage {store.url}: {sized(free)} free, grid {plan.spec.name} writes some {sized(needed)}: free some, "
            "or use another --storage"
        )
