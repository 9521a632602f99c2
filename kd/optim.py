"""Optimizers by the recipe's names."""

from __future__ import annotations

import torch
from torch import nn

from kd.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """A fused optimizer over all trainable parameters; the learning rate is set at each step by the loop."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay, fused=True)
    return torch.optim.SGD(
        parameters, lr=rate, weight_decay=decay, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True
    )
