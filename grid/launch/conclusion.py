"""What became of a launch, told at its end."""

from __future__ import annotations

import sys

from grid.contract.terminal import tell
from grid.launch.launch import Outcome


def conclude(outcome: Outcome, *, again: str, page: str, table: str = "") -> None:
    """again: the command that goes on with the launch; page: the one that shows a page of it. table: its results,
    unless it was interrupted."""
    total, titles = len(outcome.plan.stages), outcome.plan.titles()
    if outcome.interrupted:
        done = outcome.reused + outcome.done
        why = "Interrupted" if outcome.lost_ray is None else f"error: {outcome.lost_ray}. The launch ends"
        tell(f"\n{why} with {done} of {total} stages done. To go on: {again}", sys.stderr)
        for stage_id, how_far in outcome.stopped_at.items():
            tell(f"  {titles[stage_id]}: {f'saved at {how_far}' if how_far else 'starts again'}", sys.stderr)
        return
    if outcome.reused == total:
        tell("Everything was done already; nothing was computed.")
    elif not outcome.errors:
        tell(f"Done: {outcome.done} stages computed, {outcome.reused} reused.")
    if outcome.lost_workers:
        count = "1 worker was" if outcome.lost_workers == 1 else f"{outcome.lost_workers} workers were"
        tell(f"{count} lost on the way; the stages went on from their checkpoints.")
    tell(f"\n{table}")
    tell(f"Models, costs, pictures and every record on one page: {page}")
    if not outcome.errors:
        return
    failed, blocked = outcome.failed, outcome.blocked
    tell(f"{len(failed)} stages failed, {len(blocked)} were not run because of them:", sys.stderr)
    for stage in (*failed, *blocked):
        tell(f"  {stage.id} {titles[stage.id]}: {outcome.errors[stage.id]}", sys.stderr)
    tell(f"To retry them: {again}", sys.stderr)
