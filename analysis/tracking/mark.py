"""Which stages were written to Weights & Biases, in which mode, of which record: a line each, in a file that grows."""

from __future__ import annotations

import hashlib
import json
import os

from analysis.read.storage import said
from grid.contract.files.limits import size_limit
from grid.contract.files.local_files import open_to_append, read_local, write_local
from grid.contract.parsing import parse_object

MARK = "wandb/written.jsonl"
OLD_MARK = "wandb/written.json"  # one object: the modes by stage, of whatever record
ANY = ""
DIGITS = 16


class DamagedMarkError(ValueError):
    """place: the file that cannot be read."""

    def __init__(self, place: str, error: Exception) -> None:
        super().__init__(f"{place}: damaged ({said(error)}): remove it, and what is uploaded is written once more")


class Mark:
    """below: of the folder `root`, where the file lies. Raises DamagedMarkError."""

    def __init__(self, root: str, below: str) -> None:
        self.root, self.path = root, f"{below}{MARK}"
        self._written: set[tuple[str, str, str]] = set()
        for name, parse in ((OLD_MARK, _parse_old), (MARK, _parse)):
            path = f"{below}{name}"
            try:
                data = read_local(f"{root}/{path}", size_limit(path))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise DamagedMarkError(f"{root}/{path}", error) from None
            try:
                self._written |= parse(data)
            except (ValueError, KeyError) as error:
                raise DamagedMarkError(f"{root}/{path}", error) from None
            if name == MARK and data and not data.endswith(b"\n"):  # whoever was writing the last line was killed
                write_local(root, path, data[: data.rfind(b"\n") + 1])

    def has(self, stage_id: str, mode: str, record: bytes) -> bool:
        """Whether this very record was written in that mode: one that was computed again is another."""
        return bool(self._written & {(stage_id, mode, ANY), (stage_id, mode, _digest(record))})

    def add(self, stage_id: str, mode: str, record: bytes) -> None:
        found = (stage_id, mode, _digest(record))
        line = json.dumps(dict(zip(("stage", "mode", "record"), found, strict=True)))
        with os.fdopen(open_to_append(self.root, self.path), "ab") as file:
            file.write(f"{line}\n".encode())
        self._written.add(found)


def _digest(record: bytes) -> str:
    return hashlib.sha256(record).hexdigest()[:DIGITS]


def _parse(data: bytes) -> set[tuple[str, str, str]]:
    written = set()
    for line in data.split(b"\n")[:-1]:
        found = parse_object(line)
        written.add((str(found["stage"]), str(found["mode"]), str(found["record"])))
    return written


def _parse_old(data: bytes) -> set[tuple[str, str, str]]:
    mark = parse_object(data)
    if not all(isinstance(modes, list) for modes in mark.values()):
        raise ValueError("not lists of modes by stage")
    return {(stage, str(mode), ANY) for stage, modes in mark.items() for mode in modes}
