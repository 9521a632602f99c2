from __future__ import annotations

import pytest
import torch
from torch import nn

from kd.recipe import Recipe
from kd.training.optim import make_optimizer


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_the_optimizer_is_the_one_named(name: str, kind: type[torch.optim.Optimizer]) -> None:
    recipe = Recipe(optimizer=name, learning_rate=0.25, weight_decay=0.125, momentum=0.75)  # type: ignore[arg-type]
    optimizer = make_optimizer(nn.Linear(2, 2), recipe)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.25
    assert group["weight_decay"] == 0.125
    assert group.get("momentum") == (0.75 if name == "sgd" else None)
    assert group["fused"]


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_takes_nesterovs_momentum_where_asked(nesterov: bool) -> None:
    (group,) = make_optimizer(nn.Linear(2, 2), Recipe(optimizer="sgd", nesterov=nesterov)).param_groups
    assert group["nesterov"] is nesterov


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    (group,) = make_optimizer(model, Recipe()).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model[1].parameters()]
