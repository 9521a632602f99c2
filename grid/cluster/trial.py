"""What runs in a Tune trial.

torch and timm are imported by the first trial of a process, not by this module: Tune cancels a worker that is still
starting whenever another one becomes free for its trial, so a slow start would leave slots empty while cells are short.
"""

from __future__ import annotations

from typing import Any

from ray import tune


def train_cell(config: dict[str, Any]) -> None:
    """Runs in each trial. Errors become the cell's failure: a raised one would cost the worker and be retried."""
    from grid.plan import CellStage, stage_from_json
    from grid.stages import Runtime, execute, free_gpu
    from grid.store import Store
    from grid.training import run_trainable

    stage = stage_from_json(config["stage"])
    assert isinstance(stage, CellStage)
    store = Store(config["storage"])

    def work() -> None:
        # Another launch over the same storage may have been faster.
        if not store.is_done(stage):
            run_trainable(stage, store, Runtime.here(threads=config["threads"], **config["run"]))

    error = execute(stage, store, Runtime(**config["run"]), work)
    free_gpu()
    tune.report({"error": error or ""})
