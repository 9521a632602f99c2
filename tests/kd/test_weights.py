"""Weights from elsewhere: every common way of saving is read, nothing in them is run, what does not fit is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from kd.checkpoint import CheckpointError
from kd.models.weights import compare_weights, put_weights, read_weights


def net(classes: int = 10, *, width: int = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, classes))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


WRAPPED: dict[str, Any] = {
    "bare": lambda weights: weights,
    "with an epoch": lambda weights: {"state_dict": weights, "epoch": 3},
    "as timm's train.py": lambda weights: {"model": weights, "optimizer": {"lr": 0.1}},
    "data-parallel": lambda weights: {"state_dict": {f"module.{k}": v for k, v in weights.items()}},
    "compiled": lambda weights: {f"_orig_mod.{k}": v for k, v in weights.items()},
    "averaged": lambda weights: {"state_dict": {k: v * 2 for k, v in weights.items()}, "state_dict_ema": weights},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_a_torch_file_is_read_however_it_was_wrapped(tmp_path: Path, how: str) -> None:
    weights = state(net())
    torch.save(WRAPPED[how](weights), tmp_path / "model.pth")
    assert same(read_weights(tmp_path / "model.pth", what="it"), weights)


def test_safetensors_are_read(tmp_path: Path) -> None:
    weights = state(net())
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    assert same(read_weights(tmp_path / "model.safetensors", what="it"), weights)


class Bomb:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    torch.save({"state_dict": state(net()), "extra": Bomb(tmp_path / "ran")}, tmp_path / "model.pth")
    with pytest.raises(
        CheckpointError, match=r"^the file: not a checkpoint that can be read without running code in it"
    ):
        read_weights(tmp_path / "model.pth", what="the file")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_garbage_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no weights at all" * 10)
    with pytest.raises(CheckpointError, match=r"^the file: not a checkpoint"):
        read_weights(tmp_path / name, what="the file")


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {"state_dict": {"weight": 3.0}}])
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"^it: "):
        read_weights(tmp_path / "model.pth", what="it")


def test_values_that_are_not_finite_are_refused_by_key(tmp_path: Path) -> None:
    weights = state(net())
    weights["2.bias"][3] = float("nan")
    torch.save(weights, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"it: 2.bias holds values that are not finite"):
        read_weights(tmp_path / "model.pth", what="it")


def test_weights_of_the_same_model_are_loaded() -> None:
    given, model = state(net()), net()
    assert put_weights(model, given, classes=10, new_head=False, what="it") == []
    assert same(state(model), given)


def test_a_classifier_for_other_classes_starts_anew_where_it_may() -> None:
    model, given = net(10), state(net(7))
    fresh = state(model)
    assert put_weights(model, given, classes=10, new_head=True, what="it") == ["2.weight", "2.bias"]
    assert same(state(model), {**given, "2.weight": fresh["2.weight"], "2.bias": fresh["2.bias"]})


def test_a_classifier_for_other_classes_is_refused_where_it_must_be_the_right_one() -> None:
    with pytest.raises(CheckpointError, match=r"of another shape: 2.weight \(7, 6\) for \(10, 6\), 2.bias \(7,\) for"):
        put_weights(net(10), state(net(7)), classes=10, new_head=False, what="it")


def test_another_architecture_is_named_by_its_keys_and_loads_nothing() -> None:
    model, given = net(), state(net(width=8))
    before = state(model)
    del given["0.bias"]
    given |= {f"layer{i}.weight": torch.zeros(1) for i in range(5)}
    with pytest.raises(CheckpointError) as caught:
        put_weights(model, given, classes=10, new_head=True, what="checkpoint old.pth")
    text = str(caught.value)
    assert text.startswith("checkpoint old.pth: of another model than Sequential with these arguments: ")
    assert ": missing: 0.bias; " in text
    assert "unexpected: layer0.weight, layer1.weight, layer2.weight and 2 more; " in text
    assert "of another shape: 0.weight (8, 4) for (6, 4), " in text
    assert same(state(model), before)


def test_counters_of_batches_may_be_missing() -> None:
    given = state(net())
    del given["1.num_batches_tracked"]
    assert compare_weights(net(), given, classes=10, new_head=False, what="it") == []
