"""Weights from elsewhere: every common way of saving is read, nothing in them is run, what does not fit is named."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from kd.checkpoint import CheckpointError
from kd.models import weights_file
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


def other_kinds() -> dict[str, Tensor]:
    return {
        "sparse": torch.eye(3).to_sparse(),
        "sparse rows": torch.eye(3).to_sparse_csr(),
        "meta": torch.empty(3, device="meta"),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "complex": torch.ones(3, dtype=torch.complex64),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse", "sparse rows", "meta", "quantised", "complex", "nested"])
def test_tensors_that_are_no_weights_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    torch.save({"0.weight": torch.ones(1000), "0.bias": other_kinds()[kind]}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"^it: 0.bias is a tensor of another kind than weights are \("):
        read_weights(tmp_path / "model.pth", what="it")


def test_numbers_that_are_shown_a_million_times_are_not_made(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    for shown in (torch.ones(1).expand(10**6, 10**6), torch.ones(10_000)):
        torch.save({f"{i}.weight": shown for i in range(9)}, file)
        with pytest.raises(CheckpointError, match=r"it: its [\d,]+ bytes would become [\d,]+: the same numbers"):
            read_weights(file, what="it")
    tied = torch.ones(10_000)
    torch.save({"0.weight": tied, "1.weight": tied}, file)
    assert read_weights(file, what="it").keys() == {"0.weight", "1.weight"}


def repacked(file: Path, how: int) -> None:
    """The same archive, compressed as asked."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    torch.save({"0.weight": torch.zeros(1_000_000)}, file)
    repacked(file, zipfile.ZIP_STORED)
    assert len(read_weights(file, what="it")) == 1
    repacked(file, zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=r"it: it is not read: it is compressed, which torch.save never does"):
        read_weights(file, what="it")


@pytest.mark.parametrize("as_archive", [True, False])
def test_a_file_of_more_parts_than_any_model_has_is_not_read(
    tmp_path: Path, as_archive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.pth"
    torch.save({f"{i}.weight": torch.ones(1) for i in range(50)}, file, _use_new_zipfile_serialization=as_archive)
    assert len(read_weights(file, what="it")) == 50
    monkeypatch.setattr(weights_file, "OPERATIONS", 500)
    with pytest.raises(CheckpointError, match="it is not read: it has more parts than the weights of any model"):
        read_weights(file, what="it")


def test_a_safetensors_header_of_more_tensors_than_any_model_has_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes((10**9).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="it is not read: it has more tensors than any model"):
        read_weights(file, what="it")
