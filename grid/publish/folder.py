"""The folder of a published student: weights, timm's config, ONNX, a model card, the record."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import safetensors.torch
import torch
from torch import nn

from grid.contract.files.layout import RECORD
from grid.contract.program.imports import broken
from grid.contract.program.installed import hint
from grid.contract.record import WEIGHTS, Record
from grid.errors import UserError
from grid.plan import image_size
from grid.publish.model_card import model_card
from grid.publish.publication import Choice, Facts, Known
from grid.read.datasets import label_names
from grid.spec.grid import GridSpec
from grid.spec.model import ModelSpec
from grid.work.models import factory_of, untrained
from kd.data.dataset import DatasetMeta
from kd.models.build import constructor_options, passing_buffers
from kd.models.onnx_file import PACKAGES, OnnxError, OnnxFacts, missing_packages, write_onnx
from kd.models.timm_folder import TimmFolderError, check_timm_folder, hub_weights, is_timm, timm_config

CARD, CONFIG, ONNX, BUFFERS = "README.md", "config.json", "model.onnx", "buffers.safetensors"


@dataclass(frozen=True)
class Exported:
    title: str
    files: tuple[str, ...]
    """Names in the folder."""
    notes: tuple[str, ...]
    """What had to be left out, and why."""


@dataclass(frozen=True)
class Student:
    """What the storage has of it."""

    choice: Choice
    spec: GridSpec
    model: ModelSpec
    meta: DatasetMeta
    record: Record
    known: Known
    record_json: bytes
    """As it lies there."""
    module: nn.Module


def write_folder(student: Student, folder: Path, notes: list[str]) -> Exported:
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
    return Exported(facts.title, tuple(sorted(path.name for path in folder.iterdir())), tuple(notes))


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
        raise UserError(f"the plan's code has a file {name!r}: outside of the folder, or not Python")
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


def _passing(student: Student) -> dict[str, torch.Tensor]:
    """Buffers that are neither in the weights nor the same in every model: another seed gives others."""
    drawn = passing_buffers(student.module)
    if not drawn:
        return {}
    other = passing_buffers(untrained(student.model, student.meta, seed=student.choice.seed + 1))
    return {name: one for name, one in drawn.items() if name not in other or not torch.equal(one, other[name])}
