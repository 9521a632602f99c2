"""A model rebuilt from its weights must do what the one that was trained did: its accuracy is that of its record.

What a state dict does not hold, such as a buffer that is not persistent, is drawn anew when a model is built again.
"""

from __future__ import annotations

import torch
from torch import nn

from grid.contract.record import Record
from grid.errors import UserError
from grid.spec.model import ModelSpec
from grid.store.records import Value
from grid.work.models import pixels_of
from grid.work.results import provenance
from kd.data.dataset import DatasetMeta, Split
from kd.evaluate import INFERENCE_BATCH, predict, score
from kd.recipe import Precision

# Of the images of a split: as many may fall otherwise on another device, at another precision or with other kernels.
TOLERANCE = 0.005

CAUSES = (
    "it may compute with something that its weights do not hold, such as a buffer that is not persistent, or numbers "
    "drawn outside of torch, NumPy and random"
)


class RebuiltError(UserError):
    """A model does not do what its record says."""


def plain_logits(
    model: nn.Module,
    spec: ModelSpec,
    images: Split,
    *,
    split: str,
    meta: DatasetMeta,
    record: Record,
    device: torch.device,
    precision: Precision,
    what: str,
    way_out: str,
) -> torch.Tensor:
    """A rebuilt model's logits of a split's plain images, float32 [N, C] on `device`. Raises RebuiltError as
    `check_accuracy` does."""
    pixels = pixels_of(spec, meta, device)
    logits_NC = predict(model, images, pixels, batch_size=INFERENCE_BATCH, device=device, precision=precision)
    here = provenance(device, precision)
    check_accuracy(logits_NC, images.labels_N, split=split, record=record, here=here, what=what, way_out=way_out)
    return logits_NC


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

    here: the device, precision and versions that the logits come from (as `grid.work.results.provenance`): where they
    are those of the record, not a single image may differ. None where logits were rounded.
    Raises RebuiltError, which ends with `way_out`.
    """
    recorded = record.metric(split, "top1")
    if recorded is None:
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
    return bool(here["deterministic"]) and all(getattr(record, name) == value for name, value in here.items())
