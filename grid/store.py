"""Where results live, and what the store knows of stages: which are done, and what they left."""

from __future__ import annotations

import logging

from grid.errors import UserError
from grid.files import Files
from grid.identity import canonical_json
from grid.plan import LogitsStage, Stage
from grid.records import Record, RecordError, record_from_json

log = logging.getLogger("kd_grid")

RECORD = "record.json"
FAILURE = "failure.json"
TRACEBACK = "failure.txt"
IDENTITY = "identity.json"
CHECKPOINT = "checkpoint.pt"
WEIGHTS = "model.safetensors"
CURVE = "curve.parquet"
PROGRESS = "progress.json"


class IdentityMismatchError(UserError):
    """What lies under an id was computed from something else."""


class Store(Files):
    """The files of a storage, by stage."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._warned_of: set[str] = set()

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return (Store, (self.url,))

    def claim(self, stage: Stage) -> None:
        """Put the stage's canonical payload beside its outputs, or compare it with the one that is there.

        Raises IdentityMismatchError where another payload lies under the same id.
        """
        path = f"{stage.folder}/{IDENTITY}"
        payload = canonical_json(stage.payload).encode()
        try:
            found = self.read(path)
        except FileNotFoundError:
            self.write(path, payload)
            return
        if found != payload:
            raise IdentityMismatchError(
                f"{self.location(path)}: holds another computation than the one asked for under the same id; move that "
                "folder away, or use another --storage"
            )

    def is_done(self, stage: Stage) -> bool:
        """Whether the stage's outputs are complete. Raises as `claim` and `record` do."""
        if not self.exists(f"{stage.folder}/{RECORD}"):
            return False
        self.claim(stage)
        return not isinstance(stage, LogitsStage) or self.covers(stage)

    def covers(self, stage: LogitsStage) -> bool:
        """Whether the stored logits are all that are asked for, and of the teacher as it is now."""
        if not self.exists(f"{stage.teacher.folder}/{RECORD}"):
            return False
        if self.record(stage)["teacher_sha256"] != self.record(stage.teacher)["weights_sha256"]:
            if stage.id not in self._warned_of:
                self._warned_of.add(stage.id)
                log.warning("%s: made by another training of its teacher; computed again", self.location(stage.folder))
            return False
        return {unit.file for unit in stage.units} <= set(self.names(stage.folder))

    def record(self, stage: Stage) -> Record:
        """A done stage's record. Raises UserError where it cannot be read."""
        path = f"{stage.folder}/{RECORD}"
        try:
            return record_from_json(self.read(path))
        except RecordError as error:
            raise UserError(f"{self.location(path)}: {error}; remove that folder to have it computed again") from None

    def failure(self, stage: Stage, *, launch: str) -> Record | None:
        """The stage's failure in this launch, None where it left none that can be read."""
        try:
            record = record_from_json(self.read(f"{stage.folder}/{FAILURE}"))
        except (OSError, RecordError):
            return None
        return record if record["launch"] == launch else None
