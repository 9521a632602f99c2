"""scikit-learn's digits: 1,797 real scans of handwritten digits, 8 x 8, shipped inside its wheel.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
(its test part).
"""

from __future__ import annotations

import gzip
import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from kd.data.catalog import CATALOG
from kd.data.sources import DatasetError, Images


class Digits:
    info = CATALOG["digits"]

    def read(self) -> dict[str, Images]:
        """The file's 0..16 levels spread over 0..255. Raises DatasetError where they are not what the catalog knows."""
        images_NCHW, labels_N = _load()
        found = hashlib.sha256(images_NCHW.tobytes() + labels_N.tobytes()).hexdigest()
        if found != self.info.source:
            raise DatasetError(
                f"data set digits: the images read hash to {found[:16]}, known is {self.info.source[:16]}; another "
                "release of scikit-learn changed them, and results would not compare: install constraints.txt's"
            )
        return {"train": Images(images_NCHW.transpose(0, 2, 3, 1), labels_N)}


def _load() -> tuple[np.ndarray, np.ndarray]:
    """Images (uint8, [1797, 1, 8, 8]) and labels (int64, [1797]), from the wheel's file: importing scikit-learn for it
    would take longer than all the rest."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DatasetError("the digits come with scikit-learn, which is not installed: pip install scikit-learn")
    with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as lines:
        rows = np.loadtxt(lines, delimiter=",", dtype=np.float64)
    images_NCHW = np.rint(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return images_NCHW, rows[:, -1].astype(np.int64)
