"""What torch does otherwise on one device than on another stands in one file; here, on the CPU and on what stands for
another."""

from __future__ import annotations

import ast
from types import SimpleNamespace

import pytest
import torch

from kd.machine import device as module
from kd.machine.device import (
    best_device,
    device_name,
    free_memory,
    is_fast_in_bfloat16,
    memory_of,
    seed_device,
    wait_for,
)
from tests.launching import ROOT

CPU = torch.device("cpu")
OTHER = torch.device("cuda")
CARD = SimpleNamespace(name="a card")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of another device that is put in place of torch's: what was asked of it."""
    asked: list[str] = []
    there = SimpleNamespace(
        is_available=lambda: True,
        get_device_name=lambda device: CARD.name,
        manual_seed=lambda seed: asked.append(f"seed {seed}"),
        synchronize=lambda device: asked.append("waited"),
        mem_get_info=lambda device: (3, 4),
        empty_cache=lambda: asked.append("emptied"),
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: there)
    return asked


def test_another_device_is_asked_itself(told: list[str]) -> None:
    assert best_device() == "cuda"
    assert device_name(OTHER) == CARD.name
    assert memory_of(OTHER) == (3, 4)
    seed_device(OTHER, 7)
    wait_for(OTHER)
    free_memory()
    assert told == ["seed 7", "waited", "emptied"]


def test_a_cpu_needs_none_of_it(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KINDS", ())
    assert best_device() == "cpu"
    seed_device(CPU, 7)
    wait_for(CPU)
    free_memory()
    assert told == []
    assert not is_fast_in_bfloat16(CPU)
    assert device_name(CPU).endswith(("thread", "threads"))


def test_no_other_module_asks_torch_for_a_device_by_its_kind() -> None:
    """But Ray's backend, which says what kind of device its workers share."""
    found = []
    for path in [*(ROOT / "kd").rglob("*.py"), *(ROOT / "grid").rglob("*.py")]:
        nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
        attributes = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        if any(name.startswith(("torch.cuda", "torch.mps", "torch.xpu")) for name in attributes) or "cuda" in texts:
            found.append(path.relative_to(ROOT).as_posix())
    assert found == ["kd/machine/device.py"]
