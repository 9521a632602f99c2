"""GridSpec: what a user asks for. Frozen and strict; unknown keys are refused with the nearest known one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from grid.identity import canonical_json
from grid.spec.dataset import DatasetSpec
from grid.spec.method import OF_SHORTHAND, SHORTHAND, MethodSpec, Setting
from grid.spec.model import ModelSpec, TeacherSpec
from grid.spec.published import PublishedStudy
from grid.spec.resources import Resources
from grid.spec.size import check_passes, check_stages
from grid.spec.strict import Line, Name, Strict, describe, first_twice, one_or_many, shortened
from kd.limits import STREAMS, TEMPERATURE
from kd.methods import METHODS
from kd.recipe import LogitsFormat, Recipe

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")

Mode = Literal["baseline", "distilled"]
Targets = Literal["cached", "online"]


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = first_twice(values)
    if twice is not None:
        raise ValueError(f"{twice!r} is given twice")
    return values


Seed = Annotated[int, Field(ge=0, lt=2**63)]
Temperature = Annotated[float, Field(gt=0, le=TEMPERATURE)]
Alpha = Annotated[float, Field(ge=0, le=1)]


class GridSpec(Strict):
    """teachers x students x modes x seeds, and for distilled cells x method x temperature x alpha."""

    name: Name
    description: Line = ""
    dataset: DatasetSpec
    teachers: tuple[TeacherSpec, ...] = ()
    students: Annotated[tuple[ModelSpec, ...], Field(min_length=1)]
    modes: Annotated[tuple[Mode, ...], BeforeValidator(one_or_many), Field(min_length=1)] = ("baseline", "distilled")
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(one_or_many), Field(min_length=1)] = (0,)
    method: Annotated[tuple[MethodSpec, ...], BeforeValidator(one_or_many), Field(min_length=1)] = (
        MethodSpec(name=OF_SHORTHAND),
    )
    """Names, or mappings with parameters of their own."""
    temperature: Annotated[tuple[Temperature, ...], BeforeValidator(one_or_many), Field(min_length=1)] = (4.0,)
    """Of kd, where `method` gives it none."""
    alpha: Annotated[tuple[Alpha, ...], BeforeValidator(one_or_many), Field(min_length=1)] = (0.5,)
    """Of kd, where `method` gives it none."""
    targets: Targets = "cached"
    """Where distilled cells have the teacher's logits from: "cached" computes them once a view for all cells, "online"
    runs the teacher in each cell (for views that cannot be made again)."""
    logits: LogitsFormat = Field(default_factory=LogitsFormat)
    """How cached ones are stored."""
    view_streams: int = Field(default=1, ge=1, le=STREAMS)
    """How many streams of random views the seeds share; seed number i of the grid sees stream i modulo this."""
    recipe: Recipe = Field(default_factory=Recipe)
    resources: Resources = Field(default_factory=Resources)
    published: PublishedStudy | None = None

    @field_validator("name")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"{shortened(name)}: use letters, digits and . _ + - (it becomes a folder's name)")
        return name

    @field_validator("modes", "seeds", "temperature", "alpha")
    @classmethod
    def _axis_values_are_distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return _distinct(values)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if "distilled" in self.modes and not self.teachers:
            raise ValueError("teachers is empty: distilled cells need at least one (or set modes: [baseline])")
        self._check_methods()
        axes = ("seeds", "students", "teachers")
        check_stages(
            {axis: len(getattr(self, axis)) for axis in axes},
            settings=sum(method.count(self._shorthand) for method in self.method),
            alone="baseline" in self.modes,
            distilled="distilled" in self.modes,
        )
        twice = first_twice(canonical_json(setting.payload()) for setting in self.settings)
        if twice is not None:
            raise ValueError(f"method: a setting is listed twice: {shortened(twice)}")
        for axis in ("teachers", "students"):
            recipes: list[Recipe] = []
            twice = first_twice(model.shown for model in getattr(self, axis))
            if twice is not None:
                raise ValueError(f"two {axis} are called {twice!r}: give each a label of its own")
            for i, model in enumerate(getattr(self, axis)):
                try:
                    recipe = self.recipe_of(model)
                except ValidationError as error:
                    raise ValueError(f"{axis}.{i}.{describe(error, Recipe, prefix='recipe')}") from None
                recipes.append(recipe)
                if axis == "students" and "distilled" in self.modes:
                    self._check_views(f"{axis}.{i}", recipe)
                views, dataset = recipe.views, self.dataset
                if model.normalize and dataset.is_known and len(model.normalize.mean) != dataset.info.channels:
                    raise ValueError(
                        f"{axis}.{i}.normalize has {len(model.normalize.mean)} channels, {dataset.name} has "
                        f"{dataset.info.channels}"
                    )
                side = min(dataset.info.height, dataset.info.width) if dataset.is_known else math.inf
                if views.crop_padding > side:
                    raise ValueError(
                        f"{axis}.{i}: views.crop_padding {views.crop_padding} is larger than the images, of {side} "
                        "pixels: crops would lie beside them"
                    )
                if views.padding == "reflect" and views.crop_padding >= side:
                    raise ValueError(
                        f"{axis}.{i}: views.crop_padding {views.crop_padding} with padding 'reflect' needs images "
                        f"larger than that, not of {side} pixels"
                    )
                reason = views.unrepeatable
                if reason and axis == "students" and "distilled" in self.modes and self.targets == "cached":
                    raise ValueError(
                        f"{axis}.{i}: {reason}, so teacher logits cannot be cached for it; use partners 'epoch', or "
                        "targets: online"
                    )
        if "distilled" in self.modes and self.targets == "cached":
            streams = min(len(self.seeds), self.view_streams)
            check_passes(recipes, teachers=len(self.teachers), streams=streams)
        if self.published is not None:
            self._check_published(self.published)
        if self.view_streams > 1 and any(self.recipe_of(student).views.stream for student in self.students):
            raise ValueError("view_streams numbers the streams itself: leave recipe.views.stream out")
        return self

    @property
    def _shorthand(self) -> dict[str, tuple[float, ...]]:
        return {key: getattr(self, key) for key in SHORTHAND}

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The ways in which each pair is distilled, in the file's order."""
        return tuple(setting for method in self.method for setting in method.settings(self._shorthand))

    @model_serializer(mode="wrap")
    def _without_what_no_method_takes(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        taken = {key for method in self.method for key in method.open}
        return {key: value for key, value in handler(self).items() if key not in SHORTHAND or key in taken}

    def _check_methods(self) -> None:
        taken = {key for method in self.method for key in method.open}
        for key in SHORTHAND:
            if key in self.model_fields_set and key not in taken:
                named = ", ".join(method.name for method in self.method)
                raise ValueError(
                    f"{key}: no listed method leaves it to the grid ({named}): give it with the method, as in "
                    f"{{name: {self.method[0].name}, {key}: {getattr(self, key)[0]:g}}}"
                )
        for method in self.method:
            kind = METHODS[method.name]
            if kind.several_temperatures and self.targets == "cached" and self.logits.top_k is not None:
                raise ValueError(
                    f"method {method.name} needs all of the teacher's logits: leave logits.top_k out, or use targets: "
                    "online"
                )

    def _check_views(self, place: str, recipe: Recipe) -> None:
        """Of a student: what its methods cannot learn from."""
        for method in self.method:
            kind = METHODS[method.name]
            if kind.one_label and recipe.views.mixing is not None:
                raise ValueError(
                    f"{place}: method {method.name} knows one label an image: leave views.mixing out of its recipe"
                )
            if kind.batch_coupled and recipe.micro_batch_size is not None:
                raise ValueError(
                    f"{place}: the loss of method {method.name} is of a whole batch: leave micro_batch_size out of its "
                    "recipe"
                )

    def _check_published(self, published: PublishedStudy) -> None:
        for axis, named in (
            ("teacher", [m.model for m in published.models if m.mode is None] + [p.teacher for p in published.pairs]),
            ("student", [m.model for m in published.models if m.mode] + [p.student for p in published.pairs]),
        ):
            known = [model.shown for model in (self.teachers if axis == "teacher" else self.students)]
            stranger = next((label for label in named if label not in known), None)
            if stranger is not None:
                hint = ": give its mode" if stranger in [model.shown for model in self.students] else ""
                raise ValueError(f"published names {stranger!r}, which is no {axis} of the grid{hint}")
        models = [(m.model, m.mode) for m in published.models]
        for kind, keys in (("models", models), ("pairs", [(p.teacher, p.student) for p in published.pairs])):
            twice = first_twice(keys)
            if twice is not None:
                raise ValueError(f"published.{kind} has two of {', '.join(filter(None, twice))}")

    def recipe_of(self, model: ModelSpec) -> Recipe:
        """The grid's recipe with the model's overrides. Raises pydantic's ValidationError."""
        merged = _merge(asdict(self.recipe), model.recipe)
        return _recipes().validate_json(json.dumps(merged), strict=True)


@cache
def _recipes() -> TypeAdapter[Recipe]:
    """Made once: a plan asks for it again for every student and seed, and making it takes longer than all the rest."""
    return TypeAdapter(Recipe)


def _merge(base: dict[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merged[key] = _merge(base[key], value)
        else:
            merged[key] = value
    return merged
