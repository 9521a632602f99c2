"""scikit-learn's digits: 1,797 real scans of handwritten digits, 8 x 8, shipped inside its wheel.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
(its test part).
"""

from __future__ import annotations

import numpy as np


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (uint8, [1797, 1, 8, 8]; the file's 0..16 levels spread over 0..255) and labels (int64, [1797])."""
    from sklearn.datasets import load_digits as load

    bunch = load()
    levels_NHW = np.asarray(bunch.images, dtype=np.float64)
    images_NCHW = np.rint(levels_NHW * (255 / 16)).astype(np.uint8)[:, None]
    return images_NCHW, np.asarray(bunch.target, dtype=np.int64)
