"""Files of a storage that are damaged while no launch runs: as a full disk or a bad cable leaves them, or a hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from grid.contract.record import WEIGHTS

NEWER = b'{"schema_version": 99}'


def damage(storage: Path, chance: random.Random, *, files: int) -> list[tuple[str, Path]]:
    """Damage so many files, of different kinds: what was done, and the stage's folder."""
    kinds = chance.sample([*KINDS], len(KINDS))
    done: list[tuple[str, Path]] = []
    for kind in kinds:
        pattern, harm = KINDS[kind]
        found = [path for path in sorted(storage.glob(pattern)) if path.parent not in {folder for _, folder in done}]
        if found and len(done) < files:
            path = chance.choice(found)
            harm(path, chance)
            done.append((f"{kind} of {path.parent.parent.name}/{path.parent.name}", path.parent))
    return done


def _halve(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    _write(path, data[: len(data) // 2])


def _empty(path: Path, chance: random.Random) -> None:
    _write(path, b"")


def _newer(path: Path, chance: random.Random) -> None:
    _write(path, NEWER)


def _flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data) // 4, len(data))] ^= 1 << chance.randrange(8)
    _write(path, bytes(data))


def _remove(path: Path, chance: random.Random) -> None:
    path.unlink()


def _invert(path: Path, chance: random.Random) -> None:
    images = np.load(path)
    np.save(path, 255 - images)


def _cut(path: Path, chance: random.Random) -> None:
    np.save(path, np.load(path)[:3])


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)  # in place: nobody is at work


_RECORDS = "[lct]*/*/record.json"  # logits, cells, teachers
_STEM = WEIGHTS.partition(".")[0]

KINDS: dict[str, tuple[str, Callable[[Path, random.Random], None]]] = {
    "half a record": (_RECORDS, _halve),
    "an empty record": (_RECORDS, _empty),
    "a later version's record": (_RECORDS, _newer),
    "weights removed": (f"[ct]*/*/{_STEM}-*", _remove),
    "half of the weights": (f"[ct]*/*/{_STEM}-*", _halve),
    "a bit of the checkpoint": ("[ct]*/*/checkpoint.pt", _flip),
    "other pixels": ("datasets/*/train_images.npy", _invert),
    "three labels": ("datasets/*/train_labels.npy", _cut),
    "a bit of the logits": ("logits/*/*.safetensors", _flip),
}
