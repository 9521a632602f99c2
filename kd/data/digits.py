"""scikit-learn's digits: 1,797 real scans of handwritten digits, 8 x 8, shipped inside its wheel.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
(its test part).
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (uint8, [1797, 1, 8, 8]; the file's 0..16 levels spread over 0..255) and labels (int64, [1797]).

    Read from the wheel's file: importing scikit-learn for it would take longer than all the rest. Raises
    FileNotFoundError where scikit-learn is not installed.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise FileNotFoundError("the digits come with scikit-learn, which is not installed: pip install scikit-learn")
    with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as lines:
        rows = np.loadtxt(lines, delimiter=",", dtype=np.float64)
    images_NCHW = np.rint(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return images_NCHW, rows[:, -1].astype(np.int64)
