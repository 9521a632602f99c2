"""Random crops and flips of whole batches of uint8 images, without work per sample in Python.

A crop is a window of the padded image. On the CPU NumPy copies all windows of a batch in one indexed read of a strided
view; elsewhere torch does the same. Both give the same pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kd.data.views.policy import Padding


class Cropper:
    """Reads batches of views out of images_NHWC (uint8, left as it is: on the CPU it may be a memory-mapped file)."""

    def __init__(self, images_NHWC: Tensor, *, padding: int, mode: Padding) -> None:
        """Raises ValueError for a reflection wider than the images."""
        if mode == "reflect" and padding >= min(images_NHWC.shape[1:3]):
            size = " x ".join(str(side) for side in images_NHWC.shape[1:3])
            raise ValueError(f"crop_padding {padding} with padding 'reflect' needs images larger than that, not {size}")
        self.images_NHWC = images_NHWC
        self.padding = padding
        self.mode: Padding = mode

    def __call__(
        self, index_B: Tensor, *, top_B: Tensor | None, left_B: Tensor | None, flip_B: Tensor | None
    ) -> Tensor:
        """uint8 [B, H, W, C], in memory of its own. top_B, left_B: the window's corner in the padded image; flip_B:
        mirror the window."""
        if self.images_NHWC.device.type == "cpu":
            return self._on_cpu(index_B.numpy(), top_B, left_B, flip_B)
        images_BHWC = self.images_NHWC[index_B]
        if top_B is not None and left_B is not None:
            images_BHWC = _windows_torch(self._padded_torch(images_BHWC), top_B, left_B, padding=self.padding)
        if flip_B is not None:
            images_BHWC = torch.where(flip_B[:, None, None, None], images_BHWC.flip(2), images_BHWC)
        return images_BHWC

    def _on_cpu(
        self, index_B: np.ndarray, top_B: Tensor | None, left_B: Tensor | None, flip_B: Tensor | None
    ) -> Tensor:
        images_BHWC = self.images_NHWC.numpy()[index_B]
        if top_B is not None and left_B is not None:
            images_BHWC = _windows_numpy(
                self._padded_numpy(images_BHWC), top_B.numpy(), left_B.numpy(), padding=self.padding
            )
        views_BHWC = torch.from_numpy(images_BHWC)
        if flip_B is not None:
            # NumPy moves whole images quickly, torch mirrors them quickly.
            flipped = np.nonzero(flip_B.numpy())[0]
            images_BHWC[flipped] = torch.from_numpy(images_BHWC[flipped]).flip(2).numpy()
        return views_BHWC

    def _padded_numpy(self, images_BHWC: np.ndarray) -> np.ndarray:
        p = self.padding
        if self.mode == "reflect":
            return np.pad(images_BHWC, ((0, 0), (p, p), (p, p), (0, 0)), mode="reflect")
        batch, height, width, channels = images_BHWC.shape
        padded = np.zeros((batch, height + 2 * p, width + 2 * p, channels), dtype=np.uint8)
        padded[:, p : p + height, p : p + width] = images_BHWC
        return padded

    def _padded_torch(self, images_BHWC: Tensor) -> Tensor:
        p = self.padding
        images_BCHW = images_BHWC.permute(0, 3, 1, 2)
        if self.mode == "reflect":  # torch has no reflection padding of bytes
            padded_BCHW = torch.nn.functional.pad(images_BCHW.float(), (p, p, p, p), mode="reflect").to(torch.uint8)
        else:
            padded_BCHW = torch.nn.functional.pad(images_BCHW, (p, p, p, p))
        return padded_BCHW.permute(0, 2, 3, 1).contiguous()


def _windows_numpy(padded_BHWC: np.ndarray, top_B: np.ndarray, left_B: np.ndarray, *, padding: int) -> np.ndarray:
    batch, tall, wide, channels = padded_BHWC.shape
    height, width, places = tall - 2 * padding, wide - 2 * padding, 2 * padding + 1
    image, row, column, _ = padded_BHWC.strides
    # A window's row is one run of width * channels bytes.
    windows = np.lib.stride_tricks.as_strided(
        padded_BHWC, (batch, places, places, height, width * channels), (image, row, column, row, 1), writeable=False
    )
    picked_BHR: np.ndarray = windows[np.arange(batch), top_B, left_B]
    return picked_BHR.reshape(batch, height, width, channels)


def _windows_torch(padded_BHWC: Tensor, top_B: Tensor, left_B: Tensor, *, padding: int) -> Tensor:
    batch, tall, wide, channels = padded_BHWC.shape
    height, width, places = tall - 2 * padding, wide - 2 * padding, 2 * padding + 1
    image, row, column, _ = padded_BHWC.stride()
    windows = padded_BHWC.as_strided((batch, places, places, height, width * channels), (image, row, column, row, 1))
    each_B = torch.arange(batch, device=padded_BHWC.device)
    return windows[each_B, top_B, left_B].view(batch, height, width, channels)
