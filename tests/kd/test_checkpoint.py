from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kd.checkpoint import (
    CheckpointError,
    load_weights,
    model_state,
    optimizer_state,
    state_from_bytes,
    state_to_bytes,
    weights_to_bytes,
)
from tests.kd.helpers import noisy_model


def same(a: Any, b: Any) -> bool:
    """Equal in value and, tensors, in type and bits."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def trained(model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer of the model with a state, after a step."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.rand(4, 1, 8, 8)).sum().backward()
    optimizer.step()
    return optimizer


def test_weights_that_a_model_uses_twice_are_kept() -> None:
    model, again = (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(2))
    model[1].weight = model[0].weight
    load_weights(again, weights_to_bytes(model), what="it")
    assert torch.equal(again[1].weight, model[0].weight)


def test_weights_roundtrip() -> None:
    model, other = noisy_model(0), noisy_model(1)
    model(torch.rand(4, 1, 8, 8))  # moves the buffers of batch norm
    load_weights(other, weights_to_bytes(model), what="w")
    assert same(dict(other.state_dict()), dict(model.state_dict()))
    assert not torch.equal(model.state_dict()["1.running_mean"], torch.zeros(8))


def test_weights_in_another_memory_format_roundtrip() -> None:
    model, other = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
    model.to(memory_format=torch.channels_last)
    assert not model.weight.is_contiguous()
    load_weights(other, weights_to_bytes(model), what="w")
    assert same(dict(other.state_dict()), dict(model.state_dict()))


def test_the_same_weights_are_the_same_bytes() -> None:
    assert weights_to_bytes(noisy_model(0)) == weights_to_bytes(noisy_model(0))
    assert weights_to_bytes(noisy_model(0)) != weights_to_bytes(noisy_model(1))


@pytest.mark.parametrize(
    "other",
    [nn.Linear(3, 2), nn.Linear(2, 3, bias=False), nn.Sequential(nn.Linear(2, 3))],
    ids=["shape", "missing", "name"],
)
def test_weights_of_another_model_are_refused(other: nn.Module) -> None:
    data = weights_to_bytes(nn.Linear(2, 3))
    with pytest.raises(CheckpointError, match=r"^teacher vit: these weights do not fit the model"):
        load_weights(other, data, what="teacher vit")


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_truncated_weights_are_refused(kept: int) -> None:
    data = weights_to_bytes(nn.Linear(2, 3))
    with pytest.raises(CheckpointError, match=r"^w: these weights do not fit"):
        load_weights(nn.Linear(2, 3), data[:kept], what="w")


def test_states_roundtrip() -> None:
    model = noisy_model(0)
    state = {
        "epochs_done": 3,
        "model": model_state(model),
        "optimizer": optimizer_state(trained(model)),
        "curve": [{"epoch": 1, "train_loss": 0.1, "val_top1": None}],
        "note": "x",
    }
    assert same(state_from_bytes(state_to_bytes(state)), state)


def test_a_kept_state_does_not_follow_the_model() -> None:
    model = noisy_model(0)
    optimizer = trained(model)
    kept_model, kept_optimizer = model_state(model), optimizer_state(optimizer)
    before = state_to_bytes({"model": kept_model, "optimizer": kept_optimizer})
    model(torch.rand(4, 1, 8, 8)).sum().backward()
    optimizer.step()
    assert state_to_bytes({"model": kept_model, "optimizer": kept_optimizer}) == before
    assert not same(kept_model, model_state(model))
    assert not same(kept_optimizer, optimizer_state(optimizer))


def test_an_optimizer_takes_its_state_back() -> None:
    model = noisy_model(0)
    state = optimizer_state(trained(model))
    other = torch.optim.AdamW(noisy_model(1).parameters(), fused=True)
    other.load_state_dict(state)
    assert same(optimizer_state(other)["state"], state["state"])


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("written_by", ["pickle", "torch", "torch, old format"])
def test_code_in_a_state_is_refused_and_not_run(tmp_path: Path, written_by: str) -> None:
    path = tmp_path / "ran"
    if written_by == "pickle":
        data = pickle.dumps({"epochs_done": Payload(path)}, protocol=2)
        pickle.loads(data)
    else:
        buffer = io.BytesIO()
        new_format = written_by == "torch"
        torch.save({"epochs_done": Payload(path)}, buffer, _use_new_zipfile_serialization=new_format)
        data = buffer.getvalue()
        torch.load(io.BytesIO(data), weights_only=False)
    path.rmdir()  # the payload works: a reader that trusts it would have run it
    with pytest.raises(CheckpointError, match="not a training state"):
        state_from_bytes(data)
    assert not path.exists()


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_state_is_refused(kept: float) -> None:
    data = state_to_bytes({"model": model_state(noisy_model(0))})
    with pytest.raises(CheckpointError, match="not a training state"):
        state_from_bytes(data[: int(kept * len(data))])


def test_a_state_with_any_bit_flipped_is_refused() -> None:
    """Anywhere: in its numbers, which torch itself would read, as in its names and in the checksum."""
    data = state_to_bytes({"model": model_state(noisy_model(0))})
    for place in [*range(200), *range(200, len(data), 101), len(data) - 1]:
        with pytest.raises(CheckpointError, match="not a training state"):
            state_from_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])


def test_a_state_that_was_saved_without_a_checksum_is_read() -> None:
    state, buffer = {"model": model_state(noisy_model(0)), "step": 2}, io.BytesIO()
    torch.save(state, buffer)
    assert same(state_from_bytes(buffer.getvalue()), state)


@pytest.mark.parametrize("value", [[1, 2], torch.zeros(2), "state"])
def test_only_a_dict_is_a_state(value: Any) -> None:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with pytest.raises(CheckpointError, match=f"not a training state: {type(value).__name__}"):
        state_from_bytes(buffer.getvalue())
