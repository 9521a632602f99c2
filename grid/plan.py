"""The plan: GridSpec -> stages with their ids. Pure and quick; imports neither Ray nor torch."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from pydantic import TypeAdapter

from grid.contract.layout import stage_folder
from grid.identity import stage_id, without_defaults
from grid.spec.dataset import DatasetSpec
from grid.spec.grid import GridSpec, Mode, Targets
from grid.spec.method import OF_SHORTHAND, SHORTHAND, Setting
from grid.spec.model import ModelSpec, TeacherSpec
from grid.spec.strict import Strict
from kd.policy import Views
from kd.recipe import LogitsFormat, Recipe

# Raise a number when what that stage computes from the same spec changes: its results, and all that is built on
# them, then have new ids, and old ones are left alone.
STAGE_VERSIONS = {"dataset": 2, "teacher": 2, "logits": 2, "cell": 2}


class _Stage(Strict, ABC):
    kind: str

    @abstractmethod
    def spec_payload(self) -> dict[str, Any]:
        """What is computed, apart from what it is computed from."""

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
        return stage_folder(self.kind, self.id)


class DatasetStage(_Stage):
    """Read, check and split the images; compute the statistics of the training split."""

    kind: Literal["dataset"] = "dataset"
    dataset: DatasetSpec

    def spec_payload(self) -> dict[str, Any]:
        spec = self.dataset
        return {"source": spec.info.source, "splits": spec.splits, "split_seed": spec.split_seed}


class TeacherStage(_Stage):
    """Train a teacher on the labels, or take it as its checkpoint has it."""

    kind: Literal["teacher"] = "teacher"
    data: DatasetStage
    model: TeacherSpec
    recipe: Recipe

    def spec_payload(self) -> dict[str, Any]:
        model = model_payload(self.model, self.data.dataset)
        if self.model.is_given:
            # Of its recipe only this shows, in its logits.
            return {"model": model, "given": True, "recipe": {"precision": self.recipe.precision}}
        return {"model": model, "recipe": without_defaults(self.recipe), "seed": self.model.seed}

    def inputs(self) -> dict[str, str]:
        return {"dataset": self.data.id}


class LogitsStage(_Stage):
    """A teacher's logits for the views of one policy, whatever the stream, and for the plain val and test images.

    epochs: how many are needed of each stream of random views, the stream's number being the place. Where the policy
    has fewer distinct views than that, every view of every sample is kept instead, and serves all streams and epochs.
    The id holds neither: it is the same logits, and a longer schedule or another stream adds to what is stored.
    """

    kind: Literal["logits"] = "logits"
    teacher: TeacherStage
    views: Views
    stored_as: LogitsFormat = LogitsFormat()
    epochs: tuple[int, ...]

    def spec_payload(self) -> dict[str, Any]:
        return {"views": without_defaults(self.views), "stored_as": without_defaults(self.stored_as)}

    def inputs(self) -> dict[str, str]:
        return {"dataset": self.teacher.data.id, "teacher": self.teacher.id}

    @property
    def keeps_every_view(self) -> bool:
        return self.views.distinct is not None and self.views.distinct < sum(self.epochs)

    @cached_property
    def units(self) -> tuple[LogitsUnit, ...]:
        """What has to be stored, in the order in which cells ask for it."""
        if self.keeps_every_view:
            return tuple(LogitsUnit(view=number) for number in range(self.views.distinct or 0))
        drawn = [(e, s) for s, count in enumerate(self.epochs) for e in range(count)]
        return tuple(LogitsUnit(stream=s, epoch=e) for e, s in sorted(drawn))


@dataclass(frozen=True)
class LogitsUnit:
    """One pass of the teacher over the training images: an epoch of a stream of views, or one numbered view."""

    stream: int = 0
    epoch: int = 0
    view: int | None = None

    @property
    def file(self) -> str:
        if self.view is not None:
            return f"view-{self.view:05d}.safetensors"
        return f"stream-{self.stream:03d}-epoch-{self.epoch:05d}.safetensors"


class CellStage(_Stage):
    """Train a student, alone (baseline: teacher and setting are None) or with a teacher, whose
    logits are cached or, where `logits` is None, computed by the cell itself."""

    kind: Literal["cell"] = "cell"
    data: DatasetStage
    model: ModelSpec
    recipe: Recipe
    seed: int
    mode: Mode
    setting: Setting | None = None
    teacher: TeacherStage | None = None
    logits: LogitsStage | None = None

    @property
    def targets(self) -> Targets | None:
        if self.teacher is None:
            return None
        return "online" if self.logits is None else "cached"

    @property
    def how(self) -> dict[str, Any]:
        """Its setting, as rows and records have it; all None of a baseline. params: JSON, of all; those that a grid may
        say once for kd stand beside it."""
        if self.setting is None:
            return dict.fromkeys(("method", "temperature", "alpha", "params"))
        params = self.setting.params
        two = {name: params[name] if self.setting.method == OF_SHORTHAND else None for name in SHORTHAND}
        return {"method": self.setting.method, **two, "params": json.dumps(params, sort_keys=True)}

    def spec_payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "model": model_payload(self.model, self.data.dataset),
            "recipe": without_defaults(self.recipe),
            "seed": self.seed,
            "mode": self.mode,
        }
        return payload if self.setting is None else payload | self.setting.payload()

    def inputs(self) -> dict[str, str]:
        inputs = {"dataset": self.data.id}
        if self.logits is not None:
            inputs["logits"] = self.logits.id
        elif self.teacher is not None:
            inputs["teacher"] = self.teacher.id
        return inputs

    @property
    def needs(self) -> Stage | None:
        """The stage that has to be done before this one may run, besides the data."""
        return self.logits or self.teacher


Stage = DatasetStage | TeacherStage | LogitsStage | CellStage
Trainable = TeacherStage | CellStage

_STAGE: TypeAdapter[Stage] = TypeAdapter(Stage)


def stage_to_json(stage: Stage) -> str:
    return stage.model_dump_json()


def stage_from_json(text: str) -> Stage:
    return _STAGE.validate_json(text)


def model_payload(model: ModelSpec, dataset: DatasetSpec) -> dict[str, Any]:
    """A model as an id knows it: by what its weights and its inputs depend on."""
    payload = model.architecture
    if model.pretrained:
        payload["pretrained"] = True
    if model.checkpoint is not None:
        payload["checkpoint"] = model.checkpoint_sha256
    if model.normalize is not None:
        payload["normalize"] = model.normalize.model_dump()
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
            return f"teacher {self.teacher}" + (" (given)" if self.stage.model.is_given else "")
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

    @cached_property
    def _varying(self) -> dict[str, list[str]]:
        """By method the parameters that have several values in the grid, which tell its settings apart."""
        found: dict[str, dict[str, set[Any]]] = {}
        for setting in self.spec.settings:
            values = found.setdefault(setting.method, {name: set() for name in setting.params})
            for name, value in setting.params.items():
                values[name].add(value)
        return {method: [n for n, there in values.items() if len(there) > 1] for method, values in found.items()}

    def setting_of(self, cell: CellStage) -> str | None:
        """What tells its setting from others of its method: 'beta 2'; None where nothing does, and of kd, whose
        temperature and alpha stand in columns of their own."""
        if cell.setting is None or cell.setting.method == OF_SHORTHAND:
            return None
        values = {name: cell.setting.params[name] for name in self._varying[cell.setting.method]}
        shown = [f"{name} {value:g}" if type(value) is float else f"{name} {value}" for name, value in values.items()]
        return ", ".join(shown) or None

    def titles(self) -> dict[str, str]:
        """A person's words for each stage id."""
        titles = {self.data.id: f"data set {self.spec.dataset.name}"}
        for row in self.rows:
            titles.setdefault(row.stage.id, row.title)
        for cell in self.cells:
            if cell.setting is not None:
                method, params = cell.setting.method, cell.setting.params
                told = [f"method {method}"] if len(self._varying) > 1 else []
                told += [f"{name} {params[name]}" for name in self._varying[method]]
                titles[cell.id] = ", ".join([titles[cell.id], *told])
        for stage in self.logits:
            titles[stage.id] = f"logits of {titles[stage.teacher.id]}"
        return titles


def make_plan(spec: GridSpec) -> Plan:
    """Every stage the grid needs. A baseline is planned once per student, recipe and seed, whatever the teachers."""
    data = DatasetStage(dataset=spec.dataset)
    rows: list[Row] = []
    teachers: list[tuple[str, TeacherStage]] = []
    if "distilled" in spec.modes:
        for model in spec.teachers:
            teacher = TeacherStage(data=data, model=model, recipe=spec.recipe_of(model))
            teachers.append((model.shown, teacher))
            rows.append(Row(teacher, teacher=model.shown, student=None))
    settings = spec.settings
    logits = _plan_logits(spec, [teacher for _, teacher in teachers]) if spec.targets == "cached" else {}
    # Seeds outermost: an unfinished grid then has whole replicates rather than whole students.
    for place, seed in enumerate(spec.seeds):
        for student in spec.students:
            recipe = _in_stream(spec.recipe_of(student), place % spec.view_streams)
            common = {"data": data, "model": student, "recipe": recipe, "seed": seed}
            if "baseline" in spec.modes:
                rows.append(Row(CellStage(**common, mode="baseline"), teacher=None, student=student.shown))
            for label, teacher in teachers:
                stream = logits.get((teacher.id, replace(recipe.views, stream=0)))
                common |= {"teacher": teacher, "logits": stream}
                for setting in settings:
                    cell = CellStage(**common, mode="distilled", setting=setting)
                    rows.append(Row(cell, teacher=label, student=student.shown))
    unique = {row.stage.id: row.stage for row in rows}
    return Plan(
        spec=spec,
        data=data,
        teachers=tuple(s for s in unique.values() if isinstance(s, TeacherStage)),
        logits=tuple({stage.id: stage for stage in logits.values()}.values()),
        cells=tuple(s for s in unique.values() if isinstance(s, CellStage)),
        rows=tuple(rows),
    )


def _plan_logits(spec: GridSpec, teachers: list[TeacherStage]) -> dict[tuple[str, Views], LogitsStage]:
    """The logits that cells need, by teacher id and policy of views (of stream 0): the most epochs of each stream."""
    needed: dict[Views, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for student in spec.students:
        recipe = spec.recipe_of(student)
        for place in range(min(len(spec.seeds), spec.view_streams)):
            views = _in_stream(recipe, place).views
            streams = needed[replace(views, stream=0)]
            streams[views.stream] = max(streams[views.stream], recipe.epochs)
    return {
        (teacher.id, views): LogitsStage(
            teacher=teacher,
            views=views,
            stored_as=spec.logits,
            epochs=tuple(streams[number] for number in range(max(streams) + 1)),
        )
        for teacher in teachers
        for views, streams in needed.items()
    }


def _in_stream(recipe: Recipe, place: int) -> Recipe:
    return replace(recipe, views=replace(recipe.views, stream=recipe.views.stream + place))
