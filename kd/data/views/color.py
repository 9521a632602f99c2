"""Colour changes of whole batches, a strength for each image. Images are uint8 or float32 [B, H, W, C], 0 to 255."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kd.data.views.policy import ColorJitter
from kd.draws import Key, uniform

# Luma of Rec. 601, as in torchvision.
LUMA = (0.2989, 0.587, 0.114)


def gray(images_BHWC: Tensor) -> Tensor:
    """Luma, float32 [B, H, W, 1]; a single channel is its own."""
    if images_BHWC.shape[-1] == 1:
        return images_BHWC.float()
    red, green, blue = images_BHWC.float().unbind(-1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(-1)


def blend(images_BHWC: Tensor, other: Tensor | float, factor_B: Tensor) -> Tensor:
    """factor * image + (1 - factor) * other, cut to 0..255; float32."""
    factor = factor_B.float()[:, None, None, None]
    return (images_BHWC.float() * factor + (1 - factor) * other).clamp(0, 255)


def brightness(images_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    return blend(images_BHWC, 0.0, factor_B)


def saturation(images_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    if images_BHWC.shape[-1] == 1:
        return images_BHWC.float()
    return blend(images_BHWC, gray(images_BHWC).floor(), factor_B)


def contrast(images_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    # Whole numbers, summed as such: the mean does not depend on the order of summation.
    luma_BN = gray(images_BHWC).floor().long().flatten(1)
    mean_B = luma_BN.sum(dim=1).double() / luma_BN.shape[1]
    return blend(images_BHWC, mean_B.float()[:, None, None, None], factor_B)


def hue(images_BHWC: Tensor, turn_B: Tensor) -> Tensor:
    """Turn the hue by a part of the circle (-0.5 to 0.5), in HSV; float32."""
    if images_BHWC.shape[-1] == 1:
        return images_BHWC.float()
    scaled_BHWC = images_BHWC.float() / 255
    red, green, blue = scaled_BHWC.unbind(-1)
    value, low = scaled_BHWC.amax(-1), scaled_BHWC.amin(-1)
    chroma = value - low
    divisor = torch.where(chroma > 0, chroma, 1.0)
    sector = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    angle = (sector / 6 + turn_B.float()[:, None, None]) % 1.0 * 6
    # Each channel falls from `value` by chroma times a trapezoid of the angle (the usual closed form of HSV to RGB).
    channels = []
    for shift in (5, 3, 1):
        k = (angle + shift) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=-1).clamp(0, 1) * 255


JITTERS = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}


def jitter_draws(count: int, policy: ColorJitter, *, key: Key) -> dict[str, np.ndarray]:
    """Strengths by name, float64 [N], of those that the policy uses."""
    draws: dict[str, np.ndarray] = {}
    for name in JITTERS:
        reach = getattr(policy, name)
        if reach:
            low, high = (-reach, reach) if name == "hue" else (max(0.0, 1 - reach), 1 + reach)
            draws[name] = low + (high - low) * uniform(count, key=(f"jitter_{name}", *key))
    return draws
