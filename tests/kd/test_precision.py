from __future__ import annotations

import pytest
import torch

from kd.precision import autocast, resolve
from kd.recipe import Precision
from tests.kd.helpers import CPU


@pytest.mark.parametrize(("asked", "meant"), [("auto", "float32"), ("float32", "float32"), ("bfloat16", "bfloat16")])
def test_a_cpu_computes_in_float32_unless_told_otherwise(asked: Precision, meant: Precision) -> None:
    assert resolve(asked, CPU) == meant
    with autocast(asked, CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == {"float32": torch.float32, "bfloat16": torch.bfloat16}[meant]


@pytest.mark.parametrize(("capable", "meant"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_computes_in_bfloat16_where_it_has_the_units(
    monkeypatch: pytest.MonkeyPatch, capable: bool, meant: Precision
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capable or including_emulation)
    assert resolve("auto", torch.device("cuda")) == meant
    assert resolve("float32", torch.device("cuda")) == "float32"
