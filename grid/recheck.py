"""A model rebuilt from its weights must do what the one that was trained did: its accuracy is that of its record.

What a state dict does not hold, such as a buffer that is not persistent, is drawn anew when a model is built again.
"""

from __future__ import annotations

import torch

from grid.errors import UserError
from grid.records import Record, Value
from kd.evaluate import score

# Of the images of a split: as many may fall otherwise on another device, at another precision or with other kernels.
TOLERANCE = 0.005

CAUSES = (
    "it may compute with something that its weights do not hold, such as a buffer that is not persistent, or numbers "
    "drawn outside of torch, NumPy and random"
)


class RebuiltError(UserError):
    """A model does not do what its record says."""


def check_accuracy(
    logits_NC: torch.Tensor,
    labels_N: torch.Tensor,
    *,
    split: str,
    record: Record,
    here: dict[str, Value] | None,
    what: str,
    way_out: str,
) -> None:
    """Compare the accuracy of plain logits, float [N, C], with that on a record.

    here: the device, precision and versions that the logits come from (as `grid.results.provenance`): where they are
    those of the record, not a single image may differ. None where logits were rounded.
    Raises RebuiltError, which ends with `way_out`.
    """
    recorded = record[f"{split}_top1_last"]
    if not isinstance(recorded, float):
        return
    found = score(logits_NC, labels_N).top1
    images = len(labels_N)
    allowed = 0 if here is not None and _is_exact(record, here) else max(1, int(TOLERANCE * images))
    off = round(abs(found - recorded) * images)
    if off > allowed:
        raise RebuiltError(
            f"{what} has {found:.2%} on the {split} split, and {recorded:.2%} on its record: {CAUSES}; {way_out}"
        )


def _is_exact(record: Record, here: dict[str, Value]) -> bool:
    return bool(here["deterministic"]) and all(record[name] == value for name, value in here.items())
