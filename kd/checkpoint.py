"""Weights and training state as bytes, without pickle: safetensors for weights, `weights_only` for the rest."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

# A training state begins with this and the sha256 of the rest, in hex; one that was saved before has neither.
_SUMMED = b"kd training state, sha256 "
_HEAD = len(_SUMMED) + 64 + 1


class CheckpointError(ValueError):
    """The bytes are not a state this program wrote."""


def weights_to_bytes(model: nn.Module) -> bytes:
    """The state dict as safetensors, contiguous and on the CPU; weights that a model uses twice are written twice."""
    return state_dict_to_bytes(model.state_dict())


def state_dict_to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """As safetensors, the same bytes for the same tensors."""
    # Cloned: safetensors refuses tensors that share memory.
    return safetensors.torch.save({k: v.detach().cpu().clone().contiguous() for k, v in state.items()})


def load_weights(model: nn.Module, data: bytes, *, what: str) -> None:
    """Put saved weights into a model of the same shape. Raises CheckpointError naming `what` where they do not fit."""
    try:
        model.load_state_dict(safetensors.torch.load(data))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{what}: these weights do not fit the model: {' '.join(str(error).split())}") from error


def state_to_bytes(state: dict[str, Any]) -> bytes:
    """A training state of tensors, numbers, strings, lists and dicts, with the checksum that reading it looks at."""
    buffer = io.BytesIO(bytes(_HEAD))
    buffer.seek(_HEAD)
    torch.save(state, buffer)
    with buffer.getbuffer() as written:
        written[:_HEAD] = _SUMMED + hashlib.sha256(written[_HEAD:]).hexdigest().encode() + b"\n"
    return buffer.getvalue()


def state_from_bytes(data: bytes) -> dict[str, Any]:
    """Raises CheckpointError for anything but a whole state written by `state_to_bytes`; never runs pickled code."""
    body = memoryview(data)
    if data.startswith(_SUMMED):
        body = body[_HEAD:]
        if data[len(_SUMMED) : _HEAD] != hashlib.sha256(body).hexdigest().encode() + b"\n":
            raise CheckpointError("not a training state as it was saved: it has another checksum")
    try:
        state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for bytes it cannot read
        raise CheckpointError(f"not a training state: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"not a training state: {type(state).__name__}")
    return state


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state with every tensor cloned, so that later steps do not change it."""
    state: dict[str, Any] = cloned(optimizer.state_dict())
    return state


def model_state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def cloned(value: Any) -> Any:
    """A structure of dicts, lists and values with every tensor copied."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: cloned(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [cloned(v) for v in value]
    return value
