"""Weights that come from elsewhere: read without running code, compared key by key, and put into a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm.models
from torch import Tensor, nn

from kd.checkpoint import CheckpointError
from kd.models.weights_file import WeightsFileError, check_file, check_tensors

SHOWN = 3


def read_weights(path: Path, *, what: str) -> dict[str, Tensor]:
    """The state dict of a safetensors file or of one that torch.save wrote; the weights in a training checkpoint are
    found under timm's usual keys, and DistributedDataParallel's and torch.compile's prefixes are taken off.

    Raises CheckpointError naming `what`, also for a file that could only be read by running code in it.
    """
    try:
        check_file(path)
        state: Any = timm.models.load_state_dict(str(path), weights_only=True)
    except WeightsFileError as error:
        raise CheckpointError(f"{what}: it is not read: {error}") from None
    except Exception as error:  # safetensors and torch raise many types for bytes they cannot read
        detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(
            f"{what}: not a checkpoint that can be read without running code in it; save the model's weights alone, "
            f"torch.save(model.state_dict(), FILE) or safetensors.torch.save_file ({detail})"
        ) from error
    named = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    if not named or not state:
        raise CheckpointError(f"{what}: holds no state dict: expected tensors by name")
    try:
        check_tensors(state, size=path.stat().st_size)
    except WeightsFileError as error:
        raise CheckpointError(f"{what}: {error}") from None
    bad = next((k for k, v in state.items() if v.is_floating_point() and not v.float().isfinite().all()), None)
    if bad is not None:
        raise CheckpointError(f"{what}: {bad} holds values that are not finite")
    weights: dict[str, Tensor] = state
    return weights


def put_weights(model: nn.Module, state: dict[str, Tensor], *, classes: int, new_head: bool, what: str) -> list[str]:
    """Load `state`. new_head: a classifier for another number of classes keeps the model's own initial weights; the
    names of those tensors are returned. Raises as `compare_weights`."""
    head = compare_weights(model, state, classes=classes, new_head=new_head, what=what)
    model.load_state_dict({k: v for k, v in state.items() if k not in head}, strict=False)
    return head


def compare_weights(
    model: nn.Module, state: dict[str, Tensor], *, classes: int, new_head: bool, what: str
) -> list[str]:
    """The classifier's tensors, where they are for another number of classes and a new one may be learned.

    Raises CheckpointError naming the keys that are missing, unexpected or of another shape.
    """
    wanted = model.state_dict()
    differing = [k for k, v in state.items() if k in wanted and v.shape != wanted[k].shape]
    head = [k for k in differing if new_head and _is_head(state[k], wanted[k], classes)]
    # Files of before batch norm counted its batches lack the counters, which nothing here reads.
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    problems = [
        _listed("missing", missing),
        _listed("unexpected", [k for k in state if k not in wanted]),
        _listed(
            "of another shape",
            [f"{k} {tuple(state[k].shape)} for {tuple(wanted[k].shape)}" for k in differing if k not in head],
        ),
    ]
    if any(problems):
        raise CheckpointError(
            f"{what}: of another model than {type(model).__name__} with these arguments: "
            f"{'; '.join(problem for problem in problems if problem)}"
        )
    return head


def _is_head(given: Tensor, wanted: Tensor, classes: int) -> bool:
    """Whether two tensors differ as those of classifiers for other numbers of classes do."""
    return wanted.ndim == given.ndim > 0 and wanted.shape[0] == classes and given.shape[1:] == wanted.shape[1:]


def _listed(what: str, keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"{what}: {', '.join(keys[:SHOWN])}{more}" if keys else ""
