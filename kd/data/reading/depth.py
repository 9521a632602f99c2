"""Pictures of one channel with 16 bits: to 8 bits, by what white is. Pillow itself would cut them off at 255."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

FULL = 65_535  # white, where nothing says otherwise

_BITS_A_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF

# The head of a PGM: its kind, width, height and largest value, with comments between them.
_PGM = re.compile(rb"P[25](?:\s+(?:#[^\n]*\n\s*)*(\d+)){3}\s")


def is_deep(picture: Image.Image) -> bool:
    """Whether it is gray with 16 bits, from 0 to a white that is known."""
    # Older releases of Pillow open such a PNG as I, and so do all with a PGM.
    return picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))


def unknown_values(picture: Image.Image) -> str | None:
    """What its pixels are, where nothing tells which of their values is white."""
    if picture.mode == "F":
        return "floating-point numbers"
    return "integers of 32 bits, or with a sign" if picture.mode == "I" and not is_deep(picture) else None


def levels(picture: Image.Image, data: bytes) -> tuple[np.ndarray, int]:
    """The values of a deep picture, int64 [H, W], and what its file says is white. data: the file."""
    values_HW, white = np.asarray(picture).astype(np.int64), FULL
    if picture.format == "PPM":
        head = _PGM.match(data)
        white = int(head[1]) if head else FULL
        # Pillow has spread them over 16 bits.
        values_HW = (values_HW * white + FULL // 2) // FULL
    elif picture.format == "TIFF":
        tags = picture.tag_v2  # type: ignore[attr-defined]
        white = 2 ** int(tags.get(_BITS_A_SAMPLE, (16,))[0]) - 1
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            values_HW = white - values_HW
    return values_HW, white


def in_8_bits(values_HW: np.ndarray, *, white: int, given: int | None) -> np.ndarray:
    """uint8 [H, W]: the upper 8 of the bits up to `white`; where a white is given, that is 255, and more is cut off."""
    if given is None:
        upper_HW: np.ndarray = (values_HW * 256 // (white + 1)).astype(np.uint8)
        return upper_HW
    scaled_HW: np.ndarray = np.minimum((values_HW * 255 + given // 2) // given, 255).astype(np.uint8)
    return scaled_HW
