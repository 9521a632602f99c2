"""What runs in a Tune trial.

torch and timm are imported by the first trial of a process, not by this module: Tune cancels a worker that is still
starting whenever another one becomes free for its trial, so a slow start would leave slots empty while cells are short.
"""

from __future__ import annotations

import contextlib
from typing import Any

from ray import tune
from ray.tune.trainable.function_trainable import wrap_function

from grid.cluster.departure import Departure, end_process, leave_on_sigterm


def train_cell(config: dict[str, Any]) -> None:
    """Runs in each trial. Errors become the cell's failure: a raised one would cost the worker and be retried."""
    from grid.lease import Leases
    from grid.plan import CellStage, stage_from_json
    from grid.stages import Runtime, execute, free_gpu
    from grid.store import Store
    from grid.training import run_trainable
    from kd.train import StoppedError

    stage = stage_from_json(config["stage"])
    assert isinstance(stage, CellStage)
    store, runtime = Store(config["storage"]), Runtime(**config["run"])
    leases = Leases(store, runtime.launch, stop=runtime.stop)
    error, left = None, True
    with Departure() as departure:
        lease = None if departure.is_near() or leases.stopping() else leases.take(stage.folder)
        if lease is not None:

            def work() -> None:
                # Another launch over the same storage may have been faster.
                if not store.is_done(stage):
                    here = Runtime.here(threads=config["threads"], **config["run"], tries=lease.holder.tries)
                    run_trainable(stage, store, here, leave=lambda: lease.leave() or departure.is_near())

            with lease, contextlib.suppress(StoppedError):
                error, left = execute(stage, store, runtime, work), False
            free_gpu()
        if left and departure.is_near():
            end_process()
    tune.report({"error": error or "", "left": left})


class Cell(wrap_function(train_cell)):  # type: ignore[misc]
    """`train_cell` in an actor that minds SIGTERM; set up in the main thread, which alone may say so."""

    def setup(self, config: dict[str, Any]) -> None:
        leave_on_sigterm()
        super().setup(config)
