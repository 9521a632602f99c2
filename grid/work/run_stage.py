"""What a worker does for a stage, by its kind."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, assert_never

from grid.plan import Stage
from grid.store.lease import Holds
from grid.store.store import Store
from grid.work.execute import Runtime

if TYPE_CHECKING:
    from torch import nn

    from kd.machine.workers import Shard


def run_stage(
    stage: Stage,
    store: Store,
    runtime: Runtime,
    *,
    leave: Callable[[], bool],
    holds: Holds,
    found: Collection[str] | None = None,
    shard: Shard | None = None,
    wrap: Callable[[nn.Module], nn.Module] | None = None,
) -> None:
    """Compute a stage, or what is missing of it, and publish its record. leave: whether to save what there is and raise
    StoppedError. holds: whether the stage is still this launch's. found: the names in its folder when it was taken,
    where they are known. shard: of the worker, where several share the stage. wrap: makes a model of several workers of
    one that is to be trained."""
    from kd.machine.workers import WHOLE

    shard = WHOLE if shard is None else shard
    if stage.kind == "dataset":
        from grid.work.dataset import prepare_dataset

        prepare_dataset(stage, store, runtime, holds=holds)
    elif stage.kind == "logits":
        from grid.work.logits import run_logits

        run_logits(stage, store, runtime, leave=leave, holds=holds, shard=shard)
    elif stage.kind == "teacher" or stage.kind == "cell":
        from grid.work.training import run_trainable

        alone = wrap or (lambda model: model)
        run_trainable(stage, store, runtime, leave=leave, holds=holds, found=found, shard=shard, wrap=alone)
    else:
        assert_never(stage)
