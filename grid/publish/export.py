"""Publish one trained student as a folder others can use: weights, timm's config, ONNX, a model card, the record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import safetensors.torch
import torch
from torch import nn

from grid.contract.layout import RECORD, plan_file, stage_folder
from grid.contract.local_files import publishing
from grid.contract.parsing import parse_object
from grid.contract.program.imports import broken
from grid.contract.program.installed import hint
from grid.contract.record import WEIGHTS, Record, is_of_record, weights_file
from grid.errors import UserError, one_line
from grid.plan import image_size
from grid.publish.model_card import model_card
from grid.publish.publication import Choice, Facts, Known
from grid.read.datasets import label_names
from grid.read.grid_file import spec_from_dict
from grid.spec.grid import GridSpec
from grid.spec.model import ModelSpec
from grid.store.records import RecordError, record_from_json
from grid.store.store import Store
from grid.work.models import factory_of, untrained
from grid.work.recheck import plain_logits
from kd.checkpoint import CheckpointError, load_weights
from kd.data.dataset import DatasetMeta, open_split
from kd.data.sources import DatasetError
from kd.models.build import ModelError, constructor_options, on_device, passing_buffers
from kd.models.onnx_file import PACKAGES, OnnxError, OnnxFacts, missing_packages, write_onnx
from kd.models.timm_folder import TimmFolderError, check_timm_folder, hub_weights, is_timm, timm_config
from kd.recipe import Precision

CARD, CONFIG, ONNX, BUFFERS = "README.md", "config.json", "model.onnx", "buffers.safetensors"


class ExportError(UserError):
    """Nothing was published; one line says why."""


@dataclass(frozen=True)
class Published:
    """files: names in the folder. notes: what had to be left out, and why."""

    title: str
    files: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Student:
    """What the storage has of it. record_json: as it lies there."""

    choice: Choice
    spec: GridSpec
    model: ModelSpec
    meta: DatasetMeta
    record: Record
    known: Known
    record_json: bytes
    module: nn.Module


def export_student(storage: str, facts: Mapping[str, Any], to: Path, *, trust_code: bool = False) -> Published:
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
        except (UserError, ModelError, CheckpointError, DatasetError) as error:
            raise ExportError(str(error)) from None
        with publishing(target) as part:
            part.mkdir(parents=True)
            published = _write(student, part, [note] if note else [])
    except OSError as error:
        raise ExportError(f"--to {to}: {error.strerror or error}") from None
    return published


def _trained(store: Store, choice: Choice, *, trust_code: bool) -> _Student:
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
    return _Student(choice, spec, model, meta, record, known, record_json, module)


def _compared_with_its_record(student: _Student, store: Store) -> str | None:
    """Raises RebuiltError where the student does not do what its record says; a note where that cannot be seen."""
    record, device = student.record, torch.device("cuda" if torch.cuda.is_available() else "cpu")
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


def _passing(student: _Student) -> dict[str, torch.Tensor]:
    """Buffers that are neither in the weights nor the same in every model: another seed gives others."""
    drawn = passing_buffers(student.module)
    if not drawn:
        return {}
    other = passing_buffers(untrained(student.model, student.meta, seed=student.choice.seed + 1))
    return {name: one for name, one in drawn.items() if name not in other or not torch.equal(one, other[name])}


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


def _write(student: _Student, folder: Path, notes: list[str]) -> Published:
    """All files, the card last: it says what the others are."""
    model, spec, meta = student.model, student.spec, student.meta
    state = {name: tensor.contiguous() for name, tensor in student.module.state_dict().items()}
    weights = safetensors.torch.save(state, metadata={"format": "pt"})
    (folder / WEIGHTS).write_bytes(weights)
    passing = _passing(student)
    if passing:
        (folder / BUFFERS).write_bytes(safetensors.torch.save(passing))
    (folder / RECORD).write_bytes(student.record_json)
    for name, text in (model.code or {}).items():
        _write_code(folder, name, text)
    input_size = (meta.channels, *image_size(model, spec.dataset))
    given = model.normalize
    mean, std = (given.mean, given.std) if given is not None else (meta.mean, meta.std)
    std = tuple(max(value, 1e-6) for value in std)  # as kd.data.views.pixels does
    # What was resized last; bilinear too for pictures of other sizes, where training resized none.
    resized = model.image_size is not None or spec.dataset.image_size is None
    interpolation = "bilinear" if resized else "bicubic"
    labels = label_names(spec.dataset)
    from_timm = model.factory is None and is_timm(model.name) and not passing
    if from_timm:
        config = timm_config(
            model.name,
            student.module,
            args=model.args,
            classes=meta.classes,
            input_size=input_size,
            mean=mean,
            std=std,
            interpolation=interpolation,
            label_names=labels,
        )
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        try:
            check_timm_folder(folder, state)
        except TimmFolderError as error:
            (folder / CONFIG).unlink()
            from_timm = False
            notes.append(f"no {CONFIG}: {error}")
    facts = Facts(
        choice=student.choice,
        record=student.record,
        known=student.known,
        spec=spec,
        model=model,
        base_model=hub_weights(model.name) if model.pretrained else None,
        input_size=input_size,
        mean=mean,
        std=std,
        interpolation=interpolation,
        labels=labels,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        timm=from_timm,
        build=_build(model, meta, buffers=bool(passing)),
        files=sorted(model.code or {}),
        onnx=_onnx(student.module, folder, input_size, notes),
    )
    (folder / CARD).write_text(model_card(facts), encoding="utf-8")
    return Published(facts.title, tuple(sorted(path.name for path in folder.iterdir())), tuple(notes))


def _onnx(module: nn.Module, folder: Path, input_size: tuple[int, int, int], notes: list[str]) -> OnnxFacts | None:
    missing = missing_packages()
    if missing:
        notes.append(f"no {ONNX}: {' and '.join(missing)} not installed: {hint('export')}")
        return None
    try:
        return write_onnx(module, folder / ONNX, input_size=input_size)
    except OnnxError as error:
        cause = error.__cause__
        why = broken(cause, *PACKAGES) if isinstance(cause, ImportError) else str(error)
        notes.append(f"no {ONNX}: {why}")
        return None


def _write_code(folder: Path, name: str, text: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.suffix != ".py":
        raise ExportError(f"the plan's code has a file {name!r}: outside of the folder, or not Python")
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text, encoding="utf-8")


def _build(model: ModelSpec, meta: DatasetMeta, *, buffers: bool) -> str:
    """Python that gives `model` with its weights, without timm's config."""
    load = f'model.load_state_dict(load_file("{WEIGHTS}"))\n'
    if buffers:
        load += f'for name, drawn in load_file("{BUFFERS}").items():  # which its state lacks\n'
        load += "    model.get_buffer(name).copy_(drawn)\n"
    load += "model.eval()"
    imports = "import torch\nfrom safetensors.torch import load_file\n"
    if model.factory is None:
        how = f'build("{model.name}", args={model.args!r}, classes={meta.classes}, channels={meta.channels})'
        return f"{imports}from kd.models.build import build\n\nmodel = {how}\n{load}"
    place = model.factory.rpartition(":")[0]
    module = Path(place.replace("\\", "/")).stem if place.endswith(".py") else place
    options = constructor_options(
        args=model.args, classes=meta.classes, channels=meta.channels, factory=factory_of(model)
    )
    called = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"{imports}from {module} import {model.name}\n\nmodel = {model.name}({called})\n{load}"
