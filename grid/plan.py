"""The plan: GridSpec -> stages with their ids. Pure and quick; imports neither Ray nor torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import TypeAdapter

from grid.identity import stage_id, without_defaults
from grid.spec import DatasetSpec, GridSpec, Method, Mode, ModelSpec, Strict, TeacherSpec
from kd.recipe import Recipe, Views

# Raise a number when what that stage computes from the same spec changes: its results, and all that is built on
# them, then have new ids, and old ones are left alone.
STAGE_VERSIONS = {"dataset": 1, "teacher": 1, "logits": 1, "cell": 1}

FOLDERS = {"dataset": "datasets", "teacher": "teachers", "logits": "logits", "cell": "cells"}


class _Stage(Strict):
    kind: str

    def spec_payload(self) -> dict[str, Any]:
        raise NotImplementedError

    def inputs(self) -> dict[str, str]:
        """Ids of the stages this one is computed from, by role."""
        return {}

    @cached_property
    def payload(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "version": STAGE_VERSIONS[self.kind],
            "spec": self.spec_payload(),
            "inputs": self.inputs(),
        }

    @cached_property
    def id(self) -> str:
        return stage_id(self.payload)

    @property
    def folder(self) -> str:
        """Where its outputs live, relative to the storage."""
        return f"{FOLDERS[self.kind]}/{self.id}"


class DatasetStage(_Stage):
    """Read, check and split the images; compute the statistics of the training split."""

    kind: Literal["dataset"] = "dataset"
    dataset: DatasetSpec

    def spec_payload(self) -> dict[str, Any]:
        spec, info = self.dataset, self.dataset.info
        test = spec.test_size if info.test_images is None else info.test_images
        drawn_test = spec.test_size or 0
        train = info.pool_images - spec.val_size - drawn_test if spec.train_size is None else spec.train_size
        splits = {"train": train, "val": spec.val_size, "test": test}
        return {"name": spec.name, "sha256": info.sha256, "splits": splits, "split_seed": spec.split_seed}


class TeacherStage(_Stage):
    """Train a teacher on the labels."""

    kind: Literal["teacher"] = "teacher"
    data: DatasetStage
    model: TeacherSpec
    recipe: Recipe

    def spec_payload(self) -> dict[str, Any]:
        model = _model_payload(self.model, self.data.dataset)
        return {"model": model, "recipe": without_defaults(self.recipe), "seed": self.model.seed}

    def inputs(self) -> dict[str, str]:
        return {"dataset": self.data.id}


class LogitsStage(_Stage):
    """A teacher's logits for the first `epochs` epochs of a view stream.

    The number of epochs is no part of the id: a longer schedule extends what a shorter one has stored.
    """

    kind: Literal["logits"] = "logits"
    teacher: TeacherStage
    views: Views
    epochs: int

    def spec_payload(self) -> dict[str, Any]:
        return {"views": without_defaults(self.views)}

    def inputs(self) -> dict[str, str]:
        return {"dataset": self.teacher.data.id, "teacher": self.teacher.id}


class CellStage(_Stage):
    """Train a student, alone (baseline: logits, method, temperature and alpha are None) or with a teacher."""

    kind: Literal["cell"] = "cell"
    data: DatasetStage
    model: ModelSpec
    recipe: Recipe
    seed: int
    mode: Mode
    method: Method | None = None
    temperature: float | None = None
    alpha: float | None = None
    logits: LogitsStage | None = None

    def spec_payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "model": _model_payload(self.model, self.data.dataset),
            "recipe": without_defaults(self.recipe),
            "seed": self.seed,
            "mode": self.mode,
        }
        if self.mode == "distilled":
            payload |= {"method": self.method, "temperature": self.temperature, "alpha": self.alpha}
        return payload

    def inputs(self) -> dict[str, str]:
        inputs = {"dataset": self.data.id}
        if self.logits is not None:
            inputs["logits"] = self.logits.id
        return inputs


Stage = DatasetStage | TeacherStage | LogitsStage | CellStage
Trainable = TeacherStage | CellStage

_STAGE: TypeAdapter[Stage] = TypeAdapter(Stage)


def stage_to_json(stage: Stage) -> str:
    return stage.model_dump_json()


def stage_from_json(text: str) -> Stage:
    return _STAGE.validate_json(text)


def _model_payload(model: ModelSpec, dataset: DatasetSpec) -> dict[str, Any]:
    payload: dict[str, Any] = {"name": model.name, "args": model.args}
    if model.pretrained:
        payload["pretrained"] = True
    if model.image_size is not None and (model.image_size,) * 2 != (dataset.info.height, dataset.info.width):
        payload["image_size"] = model.image_size
    return payload


def image_size(model: ModelSpec, dataset: DatasetSpec) -> tuple[int, int]:
    """Height and width of what the model is fed."""
    if model.image_size is not None:
        return (model.image_size, model.image_size)
    return (dataset.info.height, dataset.info.width)


@dataclass(frozen=True)
class Row:
    """One place of the grid and the stage that fills it. Several grids' rows may share a stage."""

    stage: Trainable
    teacher: str | None
    student: str | None

    @property
    def title(self) -> str:
        """How a person would call it."""
        if isinstance(self.stage, TeacherStage):
            return f"teacher {self.teacher}"
        how = "alone" if self.teacher is None else f"from {self.teacher}"
        return f"{self.student} {how}, seed {self.stage.seed}"


@dataclass(frozen=True)
class Plan:
    """All stages of a grid, each once, in an order in which inputs come before what needs them."""

    spec: GridSpec
    data: DatasetStage
    teachers: tuple[TeacherStage, ...]
    logits: tuple[LogitsStage, ...]
    cells: tuple[CellStage, ...]
    rows: tuple[Row, ...]

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self.data, *self.teachers, *self.logits, *self.cells)

    def titles(self) -> dict[str, str]:
        """A person's words for each stage id."""
        titles = {self.data.id: f"data set {self.spec.dataset.name}"}
        for row in self.rows:
            titles.setdefault(row.stage.id, row.title)
        varying = [axis for axis in ("method", "temperature", "alpha") if len(getattr(self.spec, axis)) > 1]
        for cell in self.cells:
            if cell.mode == "distilled":
                titles[cell.id] += "".join(f", {axis} {getattr(cell, axis)}" for axis in varying)
        for stage in self.logits:
            titles[stage.id] = f"logits of {titles[stage.teacher.id]}"
        return titles


def make_plan(spec: GridSpec) -> Plan:
    """Every stage the grid needs. A baseline is planned once per student, recipe and seed, whatever the teachers."""
    data = DatasetStage(dataset=spec.dataset)
    rows: list[Row] = []
    logits: dict[str, LogitsStage] = {}
    teachers: list[tuple[str, TeacherStage]] = []
    if "distilled" in spec.modes:
        for model in spec.teachers:
            teacher = TeacherStage(data=data, model=model, recipe=spec.recipe_of(model))
            teachers.append((model.shown, teacher))
            rows.append(Row(teacher, teacher=model.shown, student=None))
    students = [(student, spec.recipe_of(student)) for student in spec.students]
    # Seeds outermost: an unfinished grid then has whole replicates rather than whole students.
    for seed in spec.seeds:
        for student, recipe in students:
            common = {"data": data, "model": student, "recipe": recipe, "seed": seed}
            if "baseline" in spec.modes:
                rows.append(Row(CellStage(**common, mode="baseline"), teacher=None, student=student.shown))
            for label, teacher in teachers:
                stream = LogitsStage(teacher=teacher, views=recipe.views, epochs=recipe.epochs)
                if stream.id not in logits or logits[stream.id].epochs < stream.epochs:
                    logits[stream.id] = stream
                for method in spec.method:
                    for temperature in spec.temperature:
                        for alpha in spec.alpha:
                            cell = CellStage(
                                **common,
                                mode="distilled",
                                method=method,
                                temperature=temperature,
                                alpha=alpha,
                                logits=stream,
                            )
                            rows.append(Row(cell, teacher=label, student=student.shown))
    unique = {row.stage.id: row.stage for row in rows}
    return Plan(
        spec=spec,
        data=data,
        teachers=tuple(s for s in unique.values() if isinstance(s, TeacherStage)),
        logits=tuple(logits.values()),
        cells=tuple(s for s in unique.values() if isinstance(s, CellStage)),
        rows=tuple(rows),
    )
