"""Which precision a forward pass runs in."""

from __future__ import annotations

import torch

from kd.machine.device import is_fast_in_bfloat16
from kd.recipe import Precision


def resolve(precision: Precision, device: torch.device) -> Precision:
    """What "auto" means on this device: bfloat16 where tensor cores make it pay, float32 elsewhere."""
    if precision != "auto":
        return precision
    return "bfloat16" if is_fast_in_bfloat16(device) else "float32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve(precision, device) == "bfloat16")
