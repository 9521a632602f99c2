"""What runs in a Tune trial.

torch and timm are imported by the first trial of a process, not by this module: Tune cancels a worker that is still
starting whenever another one becomes free for its trial, so a slow start would leave slots empty while cells are short.
"""

from __future__ import annotations

from typing import Any

from ray import tune


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
    lease = None if leases.stopping() else leases.take(stage.folder)
    if lease is None:
        tune.report({"error": "", "left": True})
        return

    def work() -> None:
        # Another launch over the same storage may have been faster.
        if not store.is_done(stage):
            here = Runtime.here(threads=config["threads"], **config["run"])
            run_trainable(stage, store, here, leave=lease.leave)

    error, left = None, False
    with lease:
        try:
            error = execute(stage, store, runtime, work)
        except StoppedError:
            left = True
    free_gpu()
    tune.report({"error": error or "", "left": left})
