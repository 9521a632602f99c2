"""Random numbers as a pure function of a key: the counter-based Philox generator, whose raw stream is fixed by its
paper and by NumPy's compatibility policy, so that views, orders and splits are the same on every machine.

Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib

import numpy as np

Key = tuple[str | int, ...]


def derive_seed(*key: str | int) -> int:
    """A 64-bit seed for a key such as ("init", 3): distinct keys give unrelated streams."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def raw(count: int, *, key: Key) -> np.ndarray:
    """`count` uniform 64-bit words (uint64) that depend on the key alone."""
    return np.random.Philox(key=derive_seed(*key)).random_raw(count)


def uniform(count: int, *, key: Key) -> np.ndarray:
    """`count` float64 in [0, 1)."""
    return (raw(count, key=key) >> np.uint64(11)) * 2.0**-53


def integers(count: int, *, below: int, key: Key) -> np.ndarray:
    """`count` int64 in [0, below): by multiplication and shift of 32-bit words, whose bias is under below / 2**32."""
    return ((raw(count, key=key) >> np.uint64(32)) * np.uint64(below) >> np.uint64(32)).astype(np.int64)


def permutation(count: int, *, key: Key) -> np.ndarray:
    """The numbers 0 .. count-1 (int64) in an order that depends on the key alone."""
    return np.argsort(raw(count, key=key), kind="stable")
