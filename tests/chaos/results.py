"""What a grid gave, to compare: the stages done, the weights of each model, and the table."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from analysis.cli import table
from grid.contract.files.layout import RECORD
from grid.contract.record import weights_file
from grid.store.records import record_from_json
from grid.store.store import Store

KINDS = ("datasets", "teachers", "logits", "cells")


@dataclass(frozen=True)
class Results:
    """stages: folders with a record; weights: their hashes, by folder; text: the table, but for what was timed."""

    stages: frozenset[str]
    weights: dict[str, str]
    text: str

    @classmethod
    def of(cls, storage: str, grid: str) -> Results:
        store = Store(storage)
        folders = [f"{kind}/{name}" for kind in KINDS for name in store.names(kind)]
        done = [folder for folder in folders if store.exists(f"{folder}/{RECORD}")]
        weights = {}
        for folder in done:
            record = record_from_json(store.read(f"{folder}/{RECORD}"))
            if record.weights_sha256 is not None:
                weights[folder] = hashlib.sha256(store.read(f"{folder}/{weights_file(record)}")).hexdigest()
        return cls(frozenset(done), weights, table(storage, grid).partition("#### Models")[0])

    def missing(self, other: Results) -> list[str]:
        return sorted(self.stages - other.stages)

    def differences(self, other: Results) -> list[str]:
        """What of the other one is not as here, one line each."""
        found = [f"stage {folder} is missing" for folder in self.missing(other)]
        found += [
            f"the weights of {folder} differ"
            for folder, digest in sorted(self.weights.items())
            if folder in other.weights and other.weights[folder] != digest
        ]
        return found if self.text == other.text else [*found, "the table differs"]
