"""Encoded pictures (PNG, JPEG, ...) to uint8 arrays of one size."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from kd.data.reading.depth import in_8_bits, is_deep, levels, unknown_values
from kd.data.sources import DatasetError
from kd.machine.alive import tell_alive

# By suffix. Pillow goes by a file's content and would take whatever it knows: it hands PostScript to Ghostscript.
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
    # Not every Pillow was built with it.
    **({".avif": "AVIF"} if "avif" in features.modules and features.check("avif") else {}),
}
READ = tuple(dict.fromkeys(FORMATS.values()))
MODES = {1: "L", 3: "RGB"}

# EXIF's orientation, and what shows the picture upright.
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

TO_16_BITS = "convert to 8 bits, or to 16 without a sign"

_PNG = b"\x89PNG\r\n\x1a\n"
_OF_8_BITS = (_PNG, b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")
# One of these stands in every such file that may say how to turn it.
_MAY_TURN = (b"Exif", b"EXIF", b"eXIf", b"exif", b"tiff:Orientation", b"com.adobe.xmp")


@dataclass(frozen=True)
class Look:
    """What a picture's file says of it."""

    deep: bool = False
    """It is gray with 16 bits."""
    deep_colour: bool = False
    """It has 16 bits a colour, of which Pillow gives the upper 8."""
    turned: bool = False
    """It is stored otherwise than it is to be shown."""
    unknown: str | None = None
    """What its pixels are, where nothing tells which value is white."""


def look(data: bytes) -> Look:
    """From the file's head, as far as that goes; of a file that cannot be read, nothing: decoding it says why."""
    deep_png = data.startswith(_PNG) and data[24:25] == b"\x10"
    if data.startswith(_OF_8_BITS) and not deep_png and not any(mark in data for mark in _MAY_TURN):
        return Look()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoding tells them
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=READ)
            deep, unknown = is_deep(picture), unknown_values(picture)
            # Pillow turns a TIFF by itself.
            turned = picture.format != "TIFF" and _turn(picture) is not None
    except Exception:  # PIL raises many types for bytes it cannot read
        return Look()
    return Look(deep=deep, deep_colour=deep_png and not deep, turned=turned, unknown=unknown)


def largest_level(data: bytes, *, what: str) -> tuple[int, int]:
    """Of a deep picture: its largest value, and what its file says is white. Raises DatasetError."""
    try:
        with Image.open(io.BytesIO(data), formats=READ) as picture:
            values_HW, white = levels(picture, data)
    except Exception as error:  # as above
        raise DatasetError(f"{what}: not a readable image ({type(error).__name__}: {error})") from None
    return int(values_HW.max()), white


def decode(data: bytes, *, channels: int, size: int | None, what: str, white: int | None = None) -> np.ndarray:
    """uint8 [H, W, channels]; resized to a square of `size` (bicubic, antialiased) where given.

    Any of FORMATS is read, whatever the file is called, and turned as its EXIF orientation says. Of 16 bits the upper 8
    are read; white: the value of such pictures that becomes 255 instead. Grayscale becomes RGB and colour becomes
    grayscale as `channels` says; transparency is dropped. Raises DatasetError naming `what` where the bytes are no such
    picture, or only part of one, or have values of which nobody knows what they mean, or more pixels than Pillow takes
    without a warning: such a file may itself be small.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Palette images with Transparency")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=READ)
            opened.load()
            unknown, turn = unknown_values(opened), _turn(opened)
            picture: Image.Image = opened
            if is_deep(opened):
                values_HW, full = levels(opened, data)
                picture = Image.fromarray(in_8_bits(values_HW, white=full, given=white))
            picture = picture.convert(MODES[channels])
            if turn is not None:
                picture = picture.transpose(turn)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DatasetError(f"{what}: too large: {str(error).rstrip('.')}: resize it first") from None
    except UnidentifiedImageError:
        raise DatasetError(f"{what}: not a readable image: its content is none of {', '.join(READ)}") from None
    except Exception as error:  # PIL raises many types for bytes it cannot read
        raise DatasetError(f"{what}: not a readable image ({type(error).__name__}: {error})") from None
    if unknown is not None:
        raise DatasetError(f"{what}: its pixels are {unknown}, and nothing tells which is white: {TO_16_BITS}")
    if size is not None and picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8).reshape(picture.height, picture.width, channels)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What shows it upright, as `PIL.ImageOps.exif_transpose` does it; EXIF that cannot be read turns nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return TURNS.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # whatever a damaged block makes its parser raise
        return None


def decode_all(
    pictures: Iterable[tuple[str, bytes]],
    *,
    count: int,
    height: int,
    width: int,
    channels: int,
    size: int | None,
    white: int | None = None,
) -> np.ndarray:
    """uint8 [count, height, width, channels] of named pictures, resized to `size` where given.

    Raises DatasetError naming a picture of another size where none was given.
    """
    images_NHWC = np.empty((count, height, width, channels), dtype=np.uint8)
    for place, (what, data) in enumerate(pictures):
        image_HWC = decode(data, channels=channels, size=size, what=what, white=white)
        if image_HWC.shape[:2] != (height, width):
            found = f"{image_HWC.shape[1]} x {image_HWC.shape[0]}"
            raise DatasetError(
                f"{what}: is {found} pixels, others are {width} x {height}: give dataset.image_size to resize them all"
            )
        images_NHWC[place] = image_HWC
        tell_alive()
    return images_NHWC
