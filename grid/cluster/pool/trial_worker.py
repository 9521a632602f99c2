"""What runs in a Tune trial.

torch and timm are imported by the first trial of a process, not by this module: at the end of a grid Tune takes away a
worker that is still starting when another one becomes free for its trial.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from ray import tune

from grid.cluster.nodes.departure import Departure, end_process, leave_on_sigterm
from grid.cluster.ray_internals.tune import trainable_of
from grid.cluster.work import CANNOT_IMPORT, import_work
from grid.errors import one_line

log = logging.getLogger("kd_grid")


class _CrowdedError(BaseException):
    """No memory is left on a GPU that others use too: no failure of the stage's, so nothing that catches errors may
    record it."""


def do_stage(config: dict[str, Any]) -> None:
    """Runs in each trial. Errors become the stage's failure: a raised one would cost the worker and be retried."""
    try:
        import_work()
    except ImportError as error:
        tune.report({"error": f"{CANNOT_IMPORT}: {one_line(error)}", "gave_way": False, "crowded": False})
    else:
        tune.report(_help(config) if config["part"] else _do_stage(config))


def _do_stage(config: dict[str, Any]) -> dict[str, Any]:
    from grid.contract.files.layout import RECORD
    from grid.plan import stage_from_json
    from grid.store.lease import Leases
    from grid.store.store import Store
    from grid.work.execute import Runtime, execute
    from grid.work.memory.host import forget_peak, peak_bytes
    from grid.work.run_stage import run_stage
    from kd.machine.device import free_memory
    from kd.machine.out_of_memory import is_out_of_gpu_memory
    from kd.machine.workers import Shard
    from kd.training.errors import StoppedError

    stage = stage_from_json(config["stage"])
    store, runtime = Store(config["storage"]), Runtime(**config["runtime"])
    leases = Leases(store, runtime.launch, stop=runtime.stop, passed_over=config["passed_over"])
    error, gave_way, crowded = None, True, False
    forget_peak()
    with Departure() as departure:
        # On an object store the lease's thread finds out within seconds: a look is a request.
        is_to_leave = departure.is_near() or (store.is_local and leases.stopping())
        lease = None if is_to_leave else leases.take(stage.folder)
        if lease is not None:
            # A worker that hung has said so, and ended.
            hung = store.failure(stage, launch=runtime.launch) if lease.holder.tries > 1 else None

            def work() -> None:
                # Another launch over the same storage may have been faster.
                if RECORD in lease.found and store.is_done(stage):
                    return
                try:
                    run_stage(
                        stage,
                        store,
                        runtime.here(threads=config["threads"], tries=lease.holder.tries),
                        leave=lambda: lease.leave() or departure.is_near(),
                        holds=lease.holds,
                        found=lease.found,
                        shard=Shard(0, config["parts"]) if stage.parts > 1 else None,
                    )
                except RuntimeError as error:
                    if config["shares_gpu"] and is_out_of_gpu_memory(error):
                        raise _CrowdedError from error
                    raise

            with lease, contextlib.suppress(StoppedError):
                try:
                    error = execute(stage, store, runtime, work, holds=lease.holds) if hung is None else str(hung.error)
                    gave_way = False
                except _CrowdedError as no_room:
                    log.warning("stage %s: %s; it is tried again with fewer beside it", stage.id, no_room.__cause__)
                    crowded = True
            free_memory()
        if gave_way and departure.is_near():
            end_process()
    return {"error": error or "", "gave_way": gave_way, "crowded": crowded, "peak": peak_bytes()}


def _help(config: dict[str, Any]) -> dict[str, Any]:
    """Do a part of a stage that another worker does, without its lease: what it leaves undone, or fails at, is the
    other's."""
    from grid.plan import stage_from_json
    from grid.store.lease import Leases, always
    from grid.store.store import Store
    from grid.work.execute import Runtime
    from grid.work.run_stage import run_stage
    from kd.machine.device import free_memory
    from kd.machine.workers import Shard
    from kd.training.errors import StoppedError

    stage = stage_from_json(config["stage"])
    store, runtime = Store(config["storage"]), Runtime(**config["runtime"])
    stopping = Leases(store, runtime.launch, stop=runtime.stop).stopping
    with Departure() as departure:
        try:
            here = runtime.here(threads=config["threads"])
            shard = Shard(config["part"], config["parts"])
            run_stage(stage, store, here, leave=lambda: departure.is_near() or stopping(), holds=always, shard=shard)
        except StoppedError:
            pass
        except Exception as error:
            log.warning("stage %s: a worker that helped with it: %s", stage.id, one_line(error))
        free_memory()
    return {"error": ""}


class Worker(trainable_of(do_stage)):  # type: ignore[misc]
    """`do_stage` in an actor that minds SIGTERM; set up in the main thread, which alone may say so."""

    def setup(self, config: dict[str, Any]) -> None:
        leave_on_sigterm()
        super().setup(config)
