"""The teacher-logit cache of one logits stage: made unit by unit, checked when read, repaired where it is damaged."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from grid.contract.files.local_files import OddFileError
from grid.contract.record import Record, weights_file
from grid.identity import canonical_json
from grid.plan import LogitsStage, LogitsUnit, TeacherStage
from grid.store.store import Store
from grid.work.models import pixels_of, untrained
from grid.work.recheck import check_accuracy, plain_logits
from kd.checkpoint import CheckpointError, load_weights
from kd.data.dataset import Dataset
from kd.data.views.views import EpochViews, ViewStream
from kd.evaluate import INFERENCE_BATCH
from kd.logits import (
    HEADER_BYTES,
    LogitsError,
    StoredLogits,
    check_header,
    compute_logits,
    fingerprint,
    gather,
    logits_to_bytes,
    open_logits,
    store_logits,
)
from kd.models.build import on_device
from kd.precision import resolve

log = logging.getLogger("kd_grid")


def sha256_of_weights(teacher: Record) -> str:
    """Raises CheckpointError where a teacher's record is of before weights were hashed."""
    if teacher.weights_sha256 is None:
        raise CheckpointError(
            f"teacher {teacher.stage_id}: its record does not have the sha256 of its weights: remove its folder, and "
            "launch the grid again to have it trained again"
        )
    return teacher.weights_sha256


def load_teacher(stage: TeacherStage, store: Store, dataset: Dataset, device: torch.device) -> nn.Module:
    """The trained teacher, in eval mode. Raises FileNotFoundError or CheckpointError."""
    teacher, record = untrained(stage.model, dataset.meta, seed=stage.seed), store.record(stage)
    path = f"{stage.folder}/{weights_file(record)}"
    data = store.read(path)
    if hashlib.sha256(data).hexdigest() != sha256_of_weights(record):
        raise CheckpointError(
            f"{store.location(path)}: damaged: these are not the weights of its record; launch the grid again to have "
            "the teacher trained again"
        )
    load_weights(teacher, data, what=store.location(path))
    return on_device(teacher, device).eval()


def logits_of_teacher(
    teacher: nn.Module, stage: TeacherStage, split: str, store: Store, dataset: Dataset, device: torch.device
) -> torch.Tensor:
    """As `grid.work.recheck.plain_logits`, of a rebuilt teacher."""
    return plain_logits(
        teacher,
        stage.model,
        dataset.split(split),
        split=split,
        meta=dataset.meta,
        record=store.record(stage),
        device=device,
        precision=stage.recipe.precision,
        what=f"teacher {stage.model.shown}, rebuilt from its weights,",
        way_out=f"mend that, and remove {store.location(stage.folder)} to have it trained again",
    )


class LogitsCache:
    """The files of one logits stage, on one device."""

    def __init__(self, stage: LogitsStage, store: Store, dataset: Dataset, device: torch.device) -> None:
        self.stage, self.store, self.dataset, self.device = stage, store, dataset, device
        self.pixels = pixels_of(stage.teacher.model, dataset.meta, device)
        self.teacher_record = store.record(stage.teacher)
        self.teacher_sha256 = sha256_of_weights(self.teacher_record)
        self.fingerprint = fingerprint(
            dataset=dataset.meta.fingerprint,
            teacher=self.teacher_sha256,
            views=canonical_json(stage.spec_payload()["views"]),
            stored_as=stage.stored_as,
            precision=resolve(stage.teacher.recipe.precision, device),
        )
        self._streams: dict[int, ViewStream] = {}
        self._every_view: list[StoredLogits] = []

    @cached_property
    def _states(self) -> dict[str, dict[str, Any]]:
        return self.store.states(self.stage.folder)

    @cached_property
    def teacher(self) -> nn.Module:
        return load_teacher(self.stage.teacher, self.store, self.dataset, self.device)

    def is_stored(self, unit: LogitsUnit) -> bool:
        """By its header and length: a stale or truncated file does not count."""
        path = f"{self.stage.folder}/{unit.file}"
        try:
            check_header(
                self.store.read_start(path, HEADER_BYTES),
                length=self.store.size(path),
                fingerprint=self.fingerprint,
                what=self.store.location(path),
            )
        except FileNotFoundError:
            return False
        except (LogitsError, OddFileError) as error:
            log.warning("%s; it is computed again", error)
            return False
        return True

    def make_all(self, *, part: int, parts: int, on_stored: Callable[[int], None]) -> int:
        """Compute what is missing: first this worker's share, then whatever others have not done yet, so that nobody
        waits for anybody. Two may at worst compute the same unit, and publish the same bytes. Returns how many were
        computed here.

        on_stored is told how many units there are whenever another one is.
        """
        units, made = self.stage.units, 0
        for unit in [*units[part::parts], *(unit for i, unit in enumerate(units) if i % parts != part)]:
            if not self.is_stored(unit):
                self.make(unit)
                made += 1
                on_stored(len({unit.file for unit in units} & set(self.store.names(self.stage.folder))))
        return made

    def make(self, unit: LogitsUnit) -> None:
        stream = self._stream(unit.stream)
        views = stream.epoch(unit.epoch) if unit.view is None else stream.numbered(unit.view)
        precision = self.stage.teacher.recipe.precision
        self._publish(unit.file, compute_logits(self.teacher, views, batch_size=INFERENCE_BATCH, precision=precision))

    def make_plain(self, split: str) -> None:
        """The logits of a split's plain images. Raises RebuiltError where they are not those of the record."""
        logits_NC = logits_of_teacher(self.teacher, self.stage.teacher, split, self.store, self.dataset, self.device)
        self._publish(_plain_file(split), logits_NC)

    def epoch(self, views: EpochViews) -> StoredLogits:
        """The logits of an epoch's views, on the CPU, in sample order."""
        if not self.stage.keeps_every_view:
            assert views.epoch is not None, "a numbered view has no epoch"
            return self._open_unit(LogitsUnit(stream=views.stream.views.stream, epoch=views.epoch))
        if not self._every_view:
            self._every_view = [self._open_unit(unit) for unit in self.stage.units]
        return gather(self._every_view, views.numbers.cpu())

    def plain(self, split: str) -> StoredLogits:
        """Raises RebuiltError where they are not those of the teacher's record."""
        images = self.dataset.split(split)
        found = self._open(_plain_file(split), len(images), lambda: self.make_plain(split))
        folder = self.store.location(self.stage.folder)
        check_accuracy(
            found.at(torch.arange(len(found)), temperature=1.0),
            images.labels_N,
            split=split,
            record=self.teacher_record,
            here=None,  # rounded as they are
            what=f"{folder}: the teacher whose logits these are",
            way_out=f"remove {folder} and {self.store.location(self.stage.teacher.folder)} to have both computed again",
        )
        return found

    def _open_unit(self, unit: LogitsUnit) -> StoredLogits:
        return self._open(unit.file, len(self.dataset.train), lambda: self.make(unit))

    def _open(self, name: str, samples: int, make: Callable[[], None]) -> StoredLogits:
        """A file's logits; one that is gone or damaged is made again."""
        path = f"{self.stage.folder}/{name}"

        def read(state: dict[str, Any] | None = None) -> StoredLogits:
            return open_logits(
                self.store.local_file(path, state),
                fingerprint=self.fingerprint,
                samples=samples,
                classes=self.dataset.meta.classes,
            )

        try:
            try:
                return read(self._states.pop(name, None))
            except (LogitsError, FileNotFoundError):  # another may have been put in its place since the look
                if not self.store.drop_copy(path):
                    raise
                return read()
        except (LogitsError, FileNotFoundError, OddFileError) as error:
            log.warning("%s; it is computed again", error)
            make()
            return read()

    def _publish(self, name: str, logits_NC: torch.Tensor) -> None:
        path = f"{self.stage.folder}/{name}"
        stored = store_logits(logits_NC, self.stage.stored_as, what=self.store.location(path))
        self.store.write(path, logits_to_bytes(stored, fingerprint=self.fingerprint))

    def _stream(self, number: int) -> ViewStream:
        if number not in self._streams:
            views = replace(self.stage.views, stream=number)
            self._streams[number] = ViewStream(self.dataset.train, views, self.pixels, device=self.device)
        return self._streams[number]


def _plain_file(split: str) -> str:
    return f"{split}.safetensors"
