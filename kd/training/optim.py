"""Optimizers by the recipe's names."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import nn

from kd.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """A fused optimizer over all trainable parameters; the learning rate is set at each step by the loop."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    match recipe.optimizer:
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay, fused=True)
        case "sgd":
            momentum, nesterov = recipe.momentum, recipe.nesterov
            return torch.optim.SGD(
                parameters, lr=rate, weight_decay=decay, momentum=momentum, nesterov=nesterov, fused=True
            )
        case _:
            assert_never(recipe.optimizer)
