"""How large a grid is, before it is planned: a plan of millions of stages would fill memory before anything is said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kd.data.views.policy import ViewPolicy
from kd.limits import PASSES, STAGES
from kd.recipe import Recipe


def check_stages(axes: Mapping[str, int], *, settings: int, alone: bool, distilled: bool) -> None:
    """axes: how many values each has; settings: of all methods. Raises ValueError where they cross to too many."""
    each = int(alone) + int(distilled) * axes["teachers"] * settings
    count = 1 + int(distilled) * axes["teachers"] + axes["seeds"] * axes["students"] * each
    if count > STAGES:
        crossed = {name: axes[name] for name in ("seeds", "students", *(("teachers",) if distilled else ()))}
        crossed |= {"settings": settings} if distilled else {}
        how = " x ".join(f"{count:,} {name}" for name, count in crossed.items() if count > 1)
        raise ValueError(f"{how} makes {count:,} stages, and a grid may have {STAGES:,}: split it into several")


def check_passes(recipes: Sequence[Recipe], *, teachers: int, streams: int) -> None:
    """Raises ValueError where the cached logits of the students' views would be too many. streams: of each student."""
    epochs: dict[ViewPolicy, int] = defaultdict(int)
    for recipe in recipes:
        views = replace(recipe.views, stream=0)
        epochs[views] = max(epochs[views], recipe.epochs)
    passes = sum(min(views.distinct or PASSES * streams, count * streams) for views, count in epochs.items())
    if passes * teachers > PASSES:
        raise ValueError(
            f"the logits of {passes * teachers:,} passes of teachers over the training images would have to be kept, "
            f"and a grid may have {PASSES:,}: fewer epochs, view_streams or policies of views, or targets: online"
        )
