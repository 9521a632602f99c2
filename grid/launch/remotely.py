"""A launch by a process on the cluster, behind a Ray Client address."""

from __future__ import annotations

from collections.abc import Sequence

from grid.cluster.guest import check_free, leave_ray
from grid.cluster.remote import launch_remotely
from grid.plan import Plan
from grid.watch.preview import inspect_models


def run_on_cluster(plan: Plan, address: str, options: Sequence[str], *, goes_on: bool) -> int:
    """Have the launch done there; returns its exit status. options: of its command line. goes_on: whether this process
    does, without Ray. The models are checked here, before Ray is joined."""
    inspect_models(plan)
    check_free()
    try:
        return launch_remotely(address, plan.spec.model_dump_json(), options)
    finally:
        if goes_on:
            leave_ray()
