"""What a worker group held goes back to the cluster once its controller is lost.

Ray Train has a cleaner for that, which asks Ray's dashboard whether the controller lives. A launch's own Ray has none,
nor have some clusters, and beside a second Ray on the machine the cleaner ends at once. The CPUs of the group would
stay reserved for as long as the launch lives, and the next group would wait for them.
"""

from __future__ import annotations

import logging
import time

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from grid.cluster.ray_internals.core import groups_without_creator
from grid.errors import one_line

log = logging.getLogger("kd_grid")

# Ray says at about the same time that an actor is lost and that what it had made is without it.
LOOKS, LOOK_SECONDS = 20, 0.25


def free_what_lost_groups_held() -> None:
    """Remove the placement groups of this job that actors made which are dead by now. Nothing is raised: what cannot be
    looked at is logged, and a Ray that has been left is left alone."""
    for _ in range(LOOKS):
        if not ray.is_initialized():  # the calls below would start another one
            return
        try:
            orphans = groups_without_creator(ray.get_runtime_context().get_job_id())
            for orphan in orphans:
                log.warning("placement group %s is removed: its controller is lost", orphan.hex())
                remove_placement_group(PlacementGroup(orphan))
        except Exception as error:  # what was asked is no public interface of Ray's
            log.warning("what a lost worker group held may stay reserved: %s", one_line(error))
            return
        if orphans:
            return
        time.sleep(LOOK_SECONDS)
