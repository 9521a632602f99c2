"""RandAugment for whole batches: each operation is applied at once to all images that drew it.

Everything is exact: pixels are uint8, colours go through tables or whole-number sums, and geometry takes the nearest
pixel at coordinates computed in float64, so that a view does not depend on its batch or its device.

Source: E. Cubuk et al., 2019; operations and strengths as in torchvision's RandAugment (nearest pixel, black outside).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kd.data.views import color
from kd.data.views.policy import RandAugment
from kd.draws import Key, integers, raw

LEVELS = 30  # magnitudes run from 0 to this


def shear_x(images_BHWC: Tensor, strength_B: Tensor) -> Tensor:
    """Each row moves sideways by `strength` times its distance from the top."""
    height, width = images_BHWC.shape[1:3]
    rows_H, cols_W = _grid(images_BHWC)
    return _nearest(
        images_BHWC,
        rows_H[None, :, None].expand(1, height, width),
        cols_W[None, None, :] + strength_B[:, None, None] * (rows_H[None, :, None] + 0.5),
    )


def shear_y(images_BHWC: Tensor, strength_B: Tensor) -> Tensor:
    return shear_x(images_BHWC.transpose(1, 2), strength_B).transpose(1, 2).contiguous()


def translate_x(images_BHWC: Tensor, pixels_B: Tensor) -> Tensor:
    """Move to the right by whole pixels."""
    height, width = images_BHWC.shape[1:3]
    rows_H, cols_W = _grid(images_BHWC)
    return _nearest(
        images_BHWC,
        rows_H[None, :, None].expand(1, height, width),
        cols_W[None, None, :] - torch.trunc(pixels_B)[:, None, None],
    )


def translate_y(images_BHWC: Tensor, pixels_B: Tensor) -> Tensor:
    return translate_x(images_BHWC.transpose(1, 2), pixels_B).transpose(1, 2).contiguous()


def rotate(images_BHWC: Tensor, degrees_B: Tensor) -> Tensor:
    """Counter-clockwise around the centre."""
    height, width = images_BHWC.shape[1:3]
    rows_H, cols_W = _grid(images_BHWC)
    y_1HW = (rows_H - (height - 1) / 2)[None, :, None].expand(1, height, width)
    x_1HW = (cols_W - (width - 1) / 2)[None, None, :].expand(1, height, width)
    angle_B11 = torch.deg2rad(degrees_B)[:, None, None]
    sin_B11, cos_B11 = angle_B11.sin(), angle_B11.cos()
    return _nearest(
        images_BHWC,
        sin_B11 * x_1HW + cos_B11 * y_1HW + (height - 1) / 2,
        cos_B11 * x_1HW - sin_B11 * y_1HW + (width - 1) / 2,
    )


def brightness(images_BHWC: Tensor, strength_B: Tensor) -> Tensor:
    return color.brightness(images_BHWC, 1 + strength_B).to(torch.uint8)


def saturation(images_BHWC: Tensor, strength_B: Tensor) -> Tensor:
    return color.saturation(images_BHWC, 1 + strength_B).to(torch.uint8)


def contrast(images_BHWC: Tensor, strength_B: Tensor) -> Tensor:
    return color.contrast(images_BHWC, 1 + strength_B).to(torch.uint8)


def sharpness(images_BHWC: Tensor, strength_B: Tensor) -> Tensor:
    """Away from (or towards) a 3 x 3 blur with weight 5 in the middle and 1 around; the border stays."""
    if min(images_BHWC.shape[1:3]) < 3:
        return images_BHWC
    whole_BHWC = images_BHWC.int()
    window = whole_BHWC.unfold(1, 3, 1).unfold(2, 3, 1).sum((-1, -2)) + 4 * whole_BHWC[:, 1:-1, 1:-1]
    blurred_BHWC = images_BHWC.clone()
    blurred_BHWC[:, 1:-1, 1:-1] = torch.round(window / 13).to(torch.uint8)
    return color.blend(images_BHWC, blurred_BHWC.float(), 1 + strength_B).to(torch.uint8)


def posterize(images_BHWC: Tensor, bits_B: Tensor) -> Tensor:
    """Keep the highest bits of each value."""
    dropped_B = 8 - bits_B.round().long()
    mask_B = (255 >> dropped_B) << dropped_B
    return images_BHWC & mask_B.to(torch.uint8)[:, None, None, None]


def solarize(images_BHWC: Tensor, threshold_B: Tensor) -> Tensor:
    """Invert what is at or above the threshold."""
    return torch.where(images_BHWC >= threshold_B[:, None, None, None], 255 - images_BHWC, images_BHWC)


def autocontrast(images_BHWC: Tensor, strength_B: Tensor) -> Tensor:
    """Stretch each channel to the whole range; a flat one stays."""
    low_B11C = images_BHWC.amin((1, 2), keepdim=True).int()
    reach_B11C = images_BHWC.amax((1, 2), keepdim=True).int() - low_B11C
    stretched_BHWC = (images_BHWC.int() - low_B11C) * 255 // reach_B11C.clamp_min(1)
    return torch.where(reach_B11C == 0, images_BHWC, stretched_BHWC.to(torch.uint8))


def equalize(images_BHWC: Tensor, strength_B: Tensor) -> Tensor:
    """Spread each channel's histogram evenly (PIL's rule: the last occupied level does not count)."""
    batch, height, width, channels = images_BHWC.shape
    levels_RN = images_BHWC.permute(0, 3, 1, 2).reshape(batch * channels, -1).long()
    counts_RL = levels_RN.new_zeros(batch * channels, 256).scatter_add_(1, levels_RN, torch.ones_like(levels_RN))
    last_R = levels_RN.amax(1, keepdim=True)
    step_R = (height * width - counts_RL.gather(1, last_R)) // 255
    below_RL = counts_RL.cumsum(1) - counts_RL
    table_RL = torch.where(step_R == 0, torch.arange(256, device=levels_RN.device), 0)
    table_RL = torch.where(step_R > 0, (below_RL + step_R // 2) // step_R.clamp_min(1), table_RL).clamp(0, 255)
    out_RN = table_RL.gather(1, levels_RN).to(torch.uint8)
    return out_RN.view(batch, channels, height, width).permute(0, 2, 3, 1).contiguous()


Operation = Callable[[Tensor, Tensor], Tensor]


def operations_at(magnitude: int, *, height: int, width: int) -> list[tuple[Operation | None, float, bool]]:
    """(what, its strength at this magnitude, whether the sign is drawn). None is the identity."""
    level = magnitude / LEVELS
    return [
        (None, 0.0, False),
        (shear_x, 0.3 * level, True),
        (shear_y, 0.3 * level, True),
        (translate_x, 150 / 331 * width * level, True),
        (translate_y, 150 / 331 * height * level, True),
        (rotate, 30 * level, True),
        (brightness, 0.9 * level, True),
        (saturation, 0.9 * level, True),
        (contrast, 0.9 * level, True),
        (sharpness, 0.9 * level, True),
        (posterize, 8 - round(4 * level), False),
        (solarize, 255 - 8.5 * magnitude, False),
        (autocontrast, 0.0, False),
        (equalize, 0.0, False),
    ]


OPERATIONS = len(operations_at(0, height=1, width=1))


def rand_augment_draws(count: int, policy: RandAugment, *, key: Key) -> dict[str, np.ndarray]:
    """operation_NR: which operation each round applies, int64; negative_NR: the sign of its strength, bool."""
    rounds = range(policy.operations)
    drawn = [integers(count, below=OPERATIONS, key=("rand_augment", r, *key)) for r in rounds]
    signs = [(raw(count, key=("rand_augment_sign", r, *key)) >> np.uint64(63)).astype(bool) for r in rounds]
    return {"operation_NR": np.stack(drawn, axis=1), "negative_NR": np.stack(signs, axis=1)}


def rand_augment(images_BHWC: Tensor, policy: RandAugment, *, operation_BR: Tensor, negative_BR: Tensor) -> Tensor:
    """uint8 [B, H, W, C] to the same."""
    height, width = images_BHWC.shape[1:3]
    operations = operations_at(policy.magnitude, height=height, width=width)
    images_BHWC = images_BHWC.clone()
    for operation_B, negative_B in zip(operation_BR.unbind(1), negative_BR.unbind(1), strict=True):
        for number, (operation, strength, signed) in enumerate(operations):
            chosen_S = (operation_B == number).nonzero()[:, 0]
            if operation is None or not len(chosen_S):
                continue
            strength_S = torch.full((len(chosen_S),), strength, dtype=torch.float64, device=images_BHWC.device)
            if signed:
                strength_S = torch.where(negative_B[chosen_S], -strength_S, strength_S)
            images_BHWC[chosen_S] = operation(images_BHWC[chosen_S], strength_S)
    return images_BHWC


def _grid(images_BHWC: Tensor) -> tuple[Tensor, Tensor]:
    height, width = images_BHWC.shape[1:3]
    rows_H = torch.arange(height, dtype=torch.float64, device=images_BHWC.device)
    return rows_H, torch.arange(width, dtype=torch.float64, device=images_BHWC.device)


def _nearest(images_BHWC: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The pixels nearest to (y, x), float64 [B or 1, H, W]; black outside."""
    batch, height, width, _ = images_BHWC.shape
    y_BHW, x_BHW = (torch.round(at).long().expand(batch, height, width) for at in (y, x))
    inside_BHW = (y_BHW >= 0) & (y_BHW < height) & (x_BHW >= 0) & (x_BHW < width)
    each_B11 = torch.arange(batch, device=images_BHWC.device)[:, None, None]
    picked_BHWC = images_BHWC[each_B11, y_BHW.clamp(0, height - 1), x_BHW.clamp(0, width - 1)]
    return torch.where(inside_BHW[..., None], picked_BHWC, 0).to(torch.uint8)
