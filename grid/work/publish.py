"""What a running stage tells of itself, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn

from grid.contract.files.layout import FAILURE, PROGRESS, RECORD
from grid.contract.record import SUMS, hashed_name
from grid.errors import one_line
from grid.plan import Stage
from grid.store.lease import Holds, always
from grid.store.records import Value, make_record, now
from grid.store.store import CHECKPOINT, TRACEBACK, Store
from kd.training.errors import StoppedError

log = logging.getLogger("kd_grid")

PROGRESS_SECONDS = 1.0


class Progress:
    """How far a running stage is, published at most once a second for whoever watches; less often on an object store,
    and there of no stage that has ended before the first time."""

    def __init__(self, stage: Stage, store: Store) -> None:
        """Of a stage that is done in steps."""
        assert stage.steps is not None
        self.path, self.store, self.total = f"{stage.folder}/{PROGRESS}", store, stage.steps[0]
        self.stage_id = stage.id
        self.started_at, self.host = now(), platform.node()
        self.written = time.monotonic() if store.slowness > 1 else -PROGRESS_SECONDS

    def report(self, done: float) -> None:
        """done: of `total` epochs or views."""
        if time.monotonic() - self.written < PROGRESS_SECONDS * self.store.slowness:
            return
        self.written = time.monotonic()
        facts = {"done": done, "total": self.total, "started_at": self.started_at, "host": self.host, "at": now()}
        try:
            self.store.write(self.path, json.dumps(facts).encode())
        except OSError as error:  # nothing is lost that anybody needs
            log.warning("stage %s: its progress is not shown: %s", self.stage_id, one_line(error))


def publish(
    stage: Stage,
    store: Store,
    values: Mapping[str, Value],
    *,
    outputs: Mapping[str, bytes] | None = None,
    sizes: Mapping[str, int] | None = None,
    left_over: bytes | None = None,
    holds: Holds = always,
) -> None:
    """Write the stage's files, and then the record that names them, which makes it done; what was only of the way there
    is removed.

    outputs: weights, curve and predictions, published under names that hold their hash, which goes on the record.
    sizes: of files that lie there already, by name; left_over: of before they were written.
    holds: whether the stage is still this launch's. Where another launch has taken it over, nothing that it may have
    published is changed: this returns once the stage is done, and raises StoppedError where it is not yet.
    """
    there = store.names(stage.folder)
    if left_over is None and RECORD in there:
        left_over = store.left_over(stage)
    outputs = outputs or {}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in outputs.items()}
    named = {hashed_name(name, sums[name]): data for name, data in outputs.items()}
    if named:
        check_held(stage, store, holds, there)
    for name, data in named.items():
        store.write(f"{stage.folder}/{name}", data)
    files = {**(sizes or {}), **{name: len(data) for name, data in named.items()}}
    if files:
        values = {**values, "files": json.dumps(files), **{SUMS[name]: sums[name] for name in sums}}
    record = make_record({**values, "status": "done", "finished_at": now()})
    became = store.commit(stage, record, holds=holds, left_over=left_over)
    if became == "lost":
        _leave_to_another(stage, store)
    if became == "done" and not stage.grows:  # whose files serve whoever made them
        log.warning("%s: done by another launch meanwhile, whose result stands", store.location(stage.folder))
    passed = (CHECKPOINT, PROGRESS, *((FAILURE, TRACEBACK) if became == "published" else ()))
    for name in passed:
        if name in there:
            store.remove(f"{stage.folder}/{name}")


def check_held(stage: Stage, store: Store, holds: Holds, names: Sequence[str] | None = None) -> None:
    if not holds(names):
        _leave_to_another(stage, store)


def _leave_to_another(stage: Stage, store: Store) -> NoReturn:
    log.warning("%s: what was computed is dropped: the stage is another launch's by now", store.location(stage.folder))
    raise StoppedError
