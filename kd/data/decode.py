"""Encoded pictures (PNG, JPEG, ...) to uint8 arrays of one size."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable

import numpy as np
from PIL import Image, UnidentifiedImageError

from kd.alive import tell_alive
from kd.data.sources import DatasetError

# By suffix. Pillow goes by a file's content and would take whatever it knows: it hands PostScript to Ghostscript.
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
}
READ = tuple(dict.fromkeys(FORMATS.values()))
MODES = {1: "L", 3: "RGB"}


def decode(data: bytes, *, channels: int, size: int | None, what: str) -> np.ndarray:
    """uint8 [H, W, channels]; resized to a square of `size` (bicubic, antialiased) where given.

    Any of FORMATS is read, whatever the file is called. Grayscale becomes RGB and colour becomes grayscale as
    `channels` says; transparency is dropped. Raises DatasetError naming `what` where the bytes are no such picture, or
    only part of one, or have more pixels than Pillow takes without a warning: such a file may itself be small.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Palette images with Transparency")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=READ).convert(MODES[channels])
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DatasetError(f"{what}: too large: {str(error).rstrip('.')}: resize it first") from None
    except UnidentifiedImageError:
        raise DatasetError(f"{what}: not a readable image: its content is none of {', '.join(READ)}") from None
    except Exception as error:  # PIL raises many types for bytes it cannot read
        raise DatasetError(f"{what}: not a readable image ({type(error).__name__}: {error})") from None
    if size is not None and picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8).reshape(picture.height, picture.width, channels)


def decode_all(
    pictures: Iterable[tuple[str, bytes]], *, count: int, height: int, width: int, channels: int, size: int | None
) -> np.ndarray:
    """uint8 [count, height, width, channels] of named pictures, resized to `size` where given.

    Raises DatasetError naming a picture of another size where none was given.
    """
    images_NHWC = np.empty((count, height, width, channels), dtype=np.uint8)
    for place, (what, data) in enumerate(pictures):
        image_HWC = decode(data, channels=channels, size=size, what=what)
        if image_HWC.shape[:2] != (height, width):
            found = f"{image_HWC.shape[1]} x {image_HWC.shape[0]}"
            raise DatasetError(
                f"{what}: is {found} pixels, others are {width} x {height}: give dataset.image_size to resize them all"
            )
        images_NHWC[place] = image_HWC
        tell_alive()
    return images_NHWC
