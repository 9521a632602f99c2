"""GridSpec -> stages with their ids. Pure and quick; imports neither Ray nor torch."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from grid.plan.cell import CellStage
from grid.plan.dataset import DatasetStage
from grid.plan.logits import LogitsStage
from grid.plan.stages import Stage, Trainable
from grid.plan.teacher import TeacherStage
from grid.spec.grid import GridSpec
from grid.spec.method import OF_SHORTHAND
from kd.data.views.policy import ViewPolicy
from kd.recipe import Recipe


@dataclass(frozen=True)
class PlanRow:
    """One place of the grid and the stage that fills it. Several grids' rows may share a stage."""

    stage: Trainable
    teacher: str | None
    student: str | None

    @property
    def title(self) -> str:
        """How a person would call it."""
        if isinstance(self.stage, TeacherStage):
            return f"teacher {self.teacher}" + (" (given)" if self.stage.is_given else "")
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
    rows: tuple[PlanRow, ...]

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
    rows: list[PlanRow] = []
    teachers: list[tuple[str, TeacherStage]] = []
    if "distilled" in spec.modes:
        for model in spec.teachers:
            teacher = TeacherStage(data=data, model=model, recipe=spec.recipe_of(model))
            teachers.append((model.shown, teacher))
            rows.append(PlanRow(teacher, teacher=model.shown, student=None))
    settings = spec.settings
    logits = _plan_logits(spec, [teacher for _, teacher in teachers]) if spec.targets == "cached" else {}
    # Seeds outermost: an unfinished grid then has whole replicates rather than whole students.
    for place, seed in enumerate(spec.seeds):
        for student in spec.students:
            recipe = _in_stream(spec.recipe_of(student), place % spec.view_streams)
            common = {"data": data, "model": student, "recipe": recipe, "seed": seed}
            if "baseline" in spec.modes:
                rows.append(PlanRow(CellStage(**common, mode="baseline"), teacher=None, student=student.shown))
            for label, teacher in teachers:
                stream = logits.get((teacher.id, replace(recipe.views, stream=0)))
                common |= {"teacher": teacher, "logits": stream}
                for setting in settings:
                    cell = CellStage(**common, mode="distilled", setting=setting)
                    rows.append(PlanRow(cell, teacher=label, student=student.shown))
    unique = {row.stage.id: row.stage for row in rows}
    return Plan(
        spec=spec,
        data=data,
        teachers=tuple(s for s in unique.values() if isinstance(s, TeacherStage)),
        logits=tuple({stage.id: stage for stage in logits.values()}.values()),
        cells=tuple(s for s in unique.values() if isinstance(s, CellStage)),
        rows=tuple(rows),
    )


def _plan_logits(spec: GridSpec, teachers: list[TeacherStage]) -> dict[tuple[str, ViewPolicy], LogitsStage]:
    """The logits that cells need, by teacher id and policy of views (of stream 0): the most epochs of each stream."""
    needed: dict[ViewPolicy, dict[int, int]] = defaultdict(lambda: defaultdict(int))
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
