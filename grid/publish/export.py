"""Publish one trained student as a folder others can use: weights, timm's config, ONNX, a model card, the record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from grid.contract.files.layout import RECORD, plan_file, stage_folder
from grid.contract.files.publishing import publishing
from grid.contract.parsing import parse_object
from grid.contract.record import WEIGHTS, is_of_record, weights_file
from grid.errors import UserError, one_line
from grid.publish.folder import Exported, Student, write_folder
from grid.publish.publication import Choice, Known
from grid.read.grid_file import spec_from_dict
from grid.spec.grid import GridSpec
from grid.spec.model import ModelSpec
from grid.store.records import RecordError, record_from_json
from grid.store.store import Store
from grid.work.models import untrained
from grid.work.recheck import plain_logits
from kd.checkpoint import CheckpointError, load_weights
from kd.data.dataset import DatasetMeta, open_split
from kd.data.sources import DatasetError
from kd.machine.device import best_device
from kd.models.build import ModelError, on_device
from kd.recipe import Precision


class ExportError(UserError):
    """Nothing was published; one line says why."""


def export_student(storage: str, facts: Mapping[str, Any], to: Path, *, trust_code: bool = False) -> Exported:
    """Write the student that `facts` (the values of a Choice) names into the folder `to`, whole or not at all.

    trust_code: run the code of a student that a factory makes. It comes with the plan, and so from whoever could write
    to the storage; nothing else of a storage is ever run.

    Raises ExportError where `to` holds something or cannot be written, or the storage lacks or damaged what is needed.
    """
    target = to.expanduser().resolve()
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ExportError(f"--to {to}: there is something already: give a new folder, or an empty one")
        try:
            store = Store(storage)
            student = _trained(store, Choice.model_validate(facts), trust_code=trust_code)
            note = _compared_with_its_record(student, store)
            with publishing(target) as part:
                part.mkdir(parents=True)
                return write_folder(student, part, [note] if note else [])
        except (UserError, ModelError, CheckpointError, DatasetError) as error:
            raise ExportError(str(error)) from None
    except OSError as error:
        raise ExportError(f"--to {to}: {error.strerror or error}") from None


def _trained(store: Store, choice: Choice, *, trust_code: bool) -> Student:
    """The student as its stage left it. Raises UserError, ModelError and CheckpointError."""
    spec = spec_from_dict(choice.spec, what=f"grid {choice.grid}, as it was run")
    model = next(model for model in spec.students if model.shown == choice.student)
    if model.factory is not None and not trust_code:
        raise ExportError(_untrusted(store, choice, spec, model))
    folder = stage_folder("cell", choice.stage_id)
    record_json = _read(store, f"{folder}/{RECORD}")
    try:
        record = record_from_json(record_json)
        known = Known.of(record)
    except RecordError as error:
        raise ExportError(f"{store.location(folder)}/{RECORD}: {error}") from None
    weights = _read(store, f"{folder}/{weights_file(record)}")
    path = store.location(f"{folder}/{weights_file(record)}")
    if not is_of_record(record, WEIGHTS, weights):
        raise ExportError(
            f"{path}: damaged: its sha256 is not the one on its record; remove {store.location(folder)} and launch the "
            "grid again"
        )
    meta = _meta(store, known)
    module = untrained(model, meta, seed=choice.seed).eval()
    load_weights(module, weights, what=path)
    return Student(choice, spec, model, meta, record, known, record_json, module)


def _compared_with_its_record(student: Student, store: Store) -> str | None:
    """Raises RebuiltError where the student does not do what its record says; a note where that cannot be seen."""
    record, device = student.record, torch.device(best_device())
    folder = stage_folder("dataset", student.known.dataset_id)
    try:
        images, labels = (store.local_file(f"{folder}/test_{what}.npy") for what in ("images", "labels"))
    except FileNotFoundError:
        return f"its accuracy was not compared with its record: there are no test images in {store.location(folder)}"
    split = open_split("test", images=images, labels=labels, meta=student.meta)
    precision: Precision = "bfloat16" if record.precision == "bfloat16" else "float32"
    plain_logits(
        on_device(student.module, device),
        student.model,
        split,
        split="test",
        meta=student.meta,
        record=record,
        device=device,
        precision=precision,
        what=f"{student.choice.student}, rebuilt from its weights,",
        way_out="nothing was published",
    )
    student.module.to("cpu").to(memory_format=torch.contiguous_format)
    return None


def _untrusted(store: Store, choice: Choice, spec: GridSpec, model: ModelSpec) -> str:
    """Whose code an export would run, and where it can be read before."""
    plan = store.location(plan_file(choice.grid))
    if model.code is None:
        where = f"what is installed here as {str(model.factory).rpartition(':')[0]}"
    else:
        files = ", ".join(sorted(model.code))
        where = (
            f"{files}, which the storage carries: read it in {plan}, spec.students.{spec.students.index(model)}.code"
        )
    return (
        f"{choice.student} is made by code that is not part of this program, {model.factory}, and an export runs it, "
        f"from {where}; give --trust-code if you trust it"
    )


def _read(store: Store, path: str) -> bytes:
    try:
        return store.read(path)
    except OSError as error:
        raise ExportError(f"{store.location(path)}: cannot be read: {one_line(error)}") from None


def _meta(store: Store, known: Known) -> DatasetMeta:
    """What the pixels were normalised with; the images themselves need not be there any more."""
    path = f"{stage_folder('dataset', known.dataset_id)}/dataset.json"
    try:
        facts = parse_object(_read(store, path))
        return DatasetMeta(
            name=str(facts["name"]),
            classes=int(facts["classes"]),
            channels=int(facts["channels"]),
            mean=tuple(map(float, facts["mean"])),
            std=tuple(map(float, facts["std"])),
            fingerprint=known.dataset_fingerprint,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{store.location(path)}: not the facts of a data set: {one_line(error)}") from None
