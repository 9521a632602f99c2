"""Where results live, and what the store knows of stages: which are done, and what they left."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from grid.contract.files.layout import FAILURE, RECORD
from grid.contract.files.local_files import OddFileError
from grid.contract.record import (
    SCHEMA_VERSION,
    WEIGHTS,
    Record,
    is_of_record,
    other_inputs,
    used_inputs,
    weights_file,
)
from grid.errors import UserError
from grid.files.copies import CopyingFiles
from grid.identity import canonical_json
from grid.plan import Stage
from grid.store.damage import damage_of
from grid.store.records import RecordError, record_from_json, record_to_json

log = logging.getLogger("kd_grid")

UNREAD = "record-unread.json"  # one that could not be read, when another took its place
TRACEBACK = "failure.txt"
IDENTITY = "identity.json"
CHECKPOINT = "checkpoint.pt"


# What became of a record: done by another launch, or its lease lost to one that is still at it.
Committed = Literal["published", "done", "lost"]


class IdentityMismatchError(UserError):
    """What lies under an id was computed from something else."""


@dataclass(frozen=True)
class Standing:
    """How a stage stands."""

    record: Record | None = None
    """Of one that was done."""
    is_done: bool = False
    damage: str | None = None
    """What is wrong with what it left, with its place."""
    other: str | None = None
    """The id of an input that is another one now than the one it used."""
    waits: bool = False
    """Whether an input is gone, and so it shows only once that is made again."""


class Inputs:
    """The records of the stages that others are computed from, each read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records: dict[str, Record | None] = {}

    def record(self, stage: Stage) -> Record | None:
        """None where the stage is not done."""
        if stage.id not in self._records:
            self._records[stage.id] = self._read(stage)
        return self._records[stage.id]

    def _read(self, stage: Stage) -> Record | None:
        try:
            record = record_from_json(self._store.read(f"{stage.folder}/{RECORD}"))
        except (FileNotFoundError, IsADirectoryError, RecordError, OddFileError):
            return None
        return record if record.status in (None, "done") else None


def _is_damaged(payload: bytes) -> bool:
    try:
        return not isinstance(json.loads(payload), dict)
    except ValueError:
        return True


def _is_longer(record: Record, found: bytes | None) -> bool:
    """Whether logits of more epochs are told of than in the record that lies there."""
    if record.kind != "logits" or found is None or _is_unread(found):
        return False
    before = record_from_json(found).epochs
    return record.epochs is not None and before is not None and record.epochs > before


def _is_unread(data: bytes) -> bool:
    try:
        record_from_json(data)
    except RecordError:
        return True
    return False


class Store(CopyingFiles):
    """The files of a storage, by stage."""

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return (Store, (self.url,))

    def claim(self, stage: Stage, *, is_new: bool = False) -> None:
        """Put the stage's canonical payload beside its outputs, or compare it with the one that is there. is_new: where
        there is probably none, which saves an object store the question.

        Raises IdentityMismatchError where another payload lies under the same id.
        """
        path = f"{stage.folder}/{IDENTITY}"
        payload = canonical_json(stage.payload).encode()
        if is_new and self.create(path, payload):
            return
        try:
            found = self.read(path)
        except FileNotFoundError:
            self.write(path, payload)
            return
        if found != payload and _is_damaged(found):
            log.warning("%s: damaged: it is written again", self.location(path))
            self.write(path, payload)
            return
        if found != payload:
            raise IdentityMismatchError(
                f"{self.location(path)}: holds another computation than the one asked for under the same id; move that "
                "folder away, or use another --storage"
            )

    def is_done(self, stage: Stage) -> bool:
        """Whether the stage's outputs are complete, and of the inputs that there are now. Raises as `claim` does."""
        return self.standing(stage).is_done

    def standing(self, stage: Stage, inputs: Inputs | None = None) -> Standing:
        """How a stage stands: by its record, the names and sizes of its files, and what it was computed from.

        inputs: of records that were read before, where many stages are asked for. Raises as `claim` does.
        """
        found = self._found_standing(stage, inputs if inputs is not None else Inputs(self))
        if found.record is not None:
            self.claim(stage)
        return found

    def _found_standing(self, stage: Stage, inputs: Inputs) -> Standing:
        sizes = self.sizes(stage.folder)
        if RECORD not in sizes:
            return Standing()
        place = self.location(f"{stage.folder}/{RECORD}")
        try:
            record = record_from_json(self.read(f"{stage.folder}/{RECORD}"))
        except FileNotFoundError:
            return Standing()
        except RecordError as error:
            return Standing(damage=f"{place}: {error}")
        except OddFileError as error:
            return Standing(damage=str(error.strerror))
        except IsADirectoryError:
            return Standing(damage=f"{place}: is a folder, not a file")
        damage = damage_of(stage, record, sizes)
        if damage is not None:
            return Standing(damage=f"{self.location(stage.folder)}/{damage}")
        return self._with_inputs(stage, record, sizes, inputs)

    def _with_inputs(self, stage: Stage, record: Record, sizes: Mapping[str, int], inputs: Inputs) -> Standing:
        there = {of.id: inputs.record(of) for of in stage.computed_from}
        others = other_inputs(record, there)
        if others:
            return Standing(record, other=others[-1])
        # Of an input that is gone nobody knows whether it will be the same; of what older records do not say, either,
        # where more of it is computed.
        used = used_inputs(vars(record))
        unknown = any(
            there[of.id] is None and (of.id in used or (stage.grows and of in stage.sources))
            for of in stage.computed_from
        )
        if not set(stage.planned_files) <= sizes.keys():
            return Standing(record)
        return Standing(record, is_done=not unknown, waits=unknown)

    def covers(self, stage: Stage) -> bool:
        """Whether what is stored is all that is asked for, and of its inputs as they are now; only reads."""
        return self._found_standing(stage, Inputs(self)).is_done

    def record(self, stage: Stage) -> Record:
        """A done stage's record. Raises UserError where it cannot be read."""
        path = f"{stage.folder}/{RECORD}"
        try:
            return record_from_json(self.read(path))
        except RecordError as error:
            raise UserError(
                f"{self.location(path)}: {error}; launch the grid again to have it computed again"
            ) from None

    def left_over(self, stage: Stage) -> bytes | None:
        """The record that lies in a stage's place and does not make it done; None where there is none."""
        try:
            found = self.peek(f"{stage.folder}/{RECORD}")
        except FileNotFoundError:
            return None
        return None if self.is_done(stage) else found

    def commit(
        self, stage: Stage, record: Record, *, holds: Callable[[], bool], left_over: bytes | None = None
    ) -> Committed:
        """Publish a stage's record, which makes it done, unless it is done already, or another launch's by now: then
        nothing has changed, and what was computed is named by no record.

        holds: whether the caller still has the stage's lease, without which nothing that lies there is replaced. A
        record is created. One that is damaged, of other inputs or of fewer logits is replaced as it was found, so that
        whoever was held up on the way, for however long, replaces none that came in between. left_over: the one that
        lay there before the stage's files were written, with which it may be whole again.
        """
        path, data = f"{stage.folder}/{RECORD}", record_to_json(record)
        while holds():
            if self.create(path, data):
                return "published"
            with contextlib.suppress(FileNotFoundError):
                found = self.peek(path)
                is_old = found is not None and found == left_over
                if not is_old and self.is_done(stage) and not _is_longer(record, found):
                    return "done"
                if found is not None and _is_unread(found):
                    self.write(f"{stage.folder}/{UNREAD}", found)
                if holds() and self.replace(path, data, old=found):
                    return "published"
        return "done" if self.is_done(stage) else "lost"

    def condemn(self, stage: Stage, reason: str) -> None:
        """Say on a done stage's record that its outputs are damaged, so that it is done no more. reason: begins with
        the file's name. For who has its lease; a record that another has published meanwhile stays as it is."""
        path = f"{stage.folder}/{RECORD}"
        found = self.read(path)
        record = record_from_json(found)
        condemned = replace(record, schema_version=SCHEMA_VERSION, status="failed", error=reason)
        self.replace(path, record_to_json(condemned), old=found)

    def weights_damage(self, stage: Stage) -> str | None:
        """What is wrong with the contents of a done stage's weights, as `condemn` takes it; None where they are those
        of its record, or that is of before weights were hashed."""
        record = self.record(stage)
        name = weights_file(record)
        if record.weights_sha256 is None or is_of_record(record, WEIGHTS, self.read(f"{stage.folder}/{name}")):
            return None
        return f"{name}: damaged: these are not the weights of its record"

    def failure(self, stage: Stage, *, launch: str) -> Record | None:
        """The stage's failure in this launch, None where it left none that can be read."""
        try:
            record = record_from_json(self.read(f"{stage.folder}/{FAILURE}"))
        except (OSError, RecordError):
            return None
        return record if record.launch == launch else None
