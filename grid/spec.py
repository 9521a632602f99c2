"""GridSpec: what a user asks for. Frozen and strict; unknown keys are refused with the nearest known one."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from grid.identity import canonical
from kd.data.catalog import CATALOG, DatasetInfo
from kd.recipe import LogitsFormat, Recipe

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")

Mode = Literal["baseline", "distilled"]
Method = Literal["kd"]
Targets = Literal["cached", "online"]


def _one_or_many(value: Any) -> Any:
    """An axis with one value may be written without brackets."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = [v for i, v in enumerate(values) if v in values[:i]]
    if twice:
        raise ValueError(f"{twice[0]!r} is given twice")
    return values


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ParquetSpec(Strict):
    """Parquet files by split, each a path or a pattern. image, label: columns (default: the hub's usual names)."""

    train: str
    val: str | None = None
    test: str | None = None
    image: str | None = None
    label: str | None = None


class DatasetSpec(Strict):
    """Which images, and how they are split.

    A data set known by name, or under a name of yours: parquet files, or a folder with train/<class>/ and perhaps val/
    and test/. Those are resized to squares of image_size (None: they all have the same size) and have `channels`.
    train_size None: all that the other splits leave. val_size, test_size: of splits that are drawn, where there is no
    official one. data: the folder that holds the files of a data set known by name. facts: filled in when it is found.
    """

    name: str
    parquet: ParquetSpec | None = None
    folder: str | None = None
    image_size: int | None = Field(default=None, ge=1)
    channels: Literal[1, 3] = 3
    train_size: int | None = Field(default=None, ge=1)
    val_size: int = Field(default=0, ge=0)
    test_size: int | None = Field(default=None, ge=1)
    split_seed: int = Field(default=0, ge=0)
    data: str | None = None
    facts: DatasetInfo | None = None

    @property
    def is_known(self) -> bool:
        """Whether there is an `info` yet."""
        return self.facts is not None or (self.parquet is None and self.folder is None)

    @property
    def info(self) -> DatasetInfo:
        """Known once the images are found (`grid.datasets.located`)."""
        return self.facts or CATALOG[self.name]

    @property
    def splits(self) -> dict[str, int]:
        """Images in each split."""
        info = self.info
        drawn_val = self.val_size if info.val_images is None else 0
        drawn_test = (self.test_size or 0) if info.test_images is None else 0
        rest = info.pool_images - drawn_val - drawn_test
        return {
            "train": rest if self.train_size is None else self.train_size,
            "val": drawn_val if info.val_images is None else info.val_images,
            "test": drawn_test if info.test_images is None else info.test_images,
        }

    @model_validator(mode="after")
    def _known_and_large_enough(self) -> Self:
        own = self.parquet is not None or self.folder is not None
        if self.parquet is not None and self.folder is not None:
            raise ValueError("give parquet or folder, not both")
        if not own and self.name not in CATALOG:
            raise ValueError(
                f"unknown data set {self.name!r}; known: {', '.join(sorted(CATALOG))}; or give parquet or folder"
            )
        if not own and self.image_size is not None:
            raise ValueError(f"image_size belongs to parquet and folder: {self.name}'s own size is known")
        if not self.is_known:
            return self
        info = self.info
        for split, official in (("val", info.val_images), ("test", info.test_images)):
            size = self.val_size if split == "val" else self.test_size
            if official is not None and size:
                raise ValueError(f"{self.name} has an official {split} set of {official}: leave {split}_size out")
        if info.test_images is None and self.test_size is None:
            raise ValueError(f"{self.name} has no official test set: give test_size")
        splits = self.splits
        for split, size in splits.items():
            if size and size < info.classes:
                raise ValueError(f"{split}_size {size} leaves out some of the {info.classes} classes")
        drawn = sum(
            max(size, 1) if split == "train" else size
            for split, size in splits.items()
            if split == "train" or (info.val_images if split == "val" else info.test_images) is None
        )
        if drawn > info.pool_images:
            raise ValueError(f"the splits ask for {drawn} images, {self.name} has {info.pool_images}")
        return self


class ModelSpec(Strict):
    """A model by timm's name or one of ours, with its constructor's arguments.

    label: how tables call it (default: its name). image_size: views are resized to it (default: the native grid).
    recipe: what differs from the grid's recipe for this model.
    """

    name: str
    args: dict[str, Any] = Field(default_factory=dict)
    pretrained: bool = False
    image_size: int | None = Field(default=None, ge=1)
    label: str = ""
    recipe: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("args")
    @classmethod
    def _args_are_ours_to_set(cls, args: dict[str, Any]) -> dict[str, Any]:
        for taken in ("num_classes", "in_chans", "pretrained", "model_name"):
            if taken in args:
                raise ValueError(f"{taken} follows from the data set or the entry itself: leave it out of args")
        for file in ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            if file in args:
                raise ValueError(f"{file} would make the result depend on a file that its id does not know")
        return args

    @field_validator("args", "recipe")
    @classmethod
    def _has_an_id(cls, values: dict[str, Any]) -> dict[str, Any]:
        canonical(values)
        return values

    @property
    def shown(self) -> str:
        return self.label or self.name


class TeacherSpec(ModelSpec):
    """A teacher is trained once, from this seed."""

    seed: int = Field(default=0, ge=0, lt=2**63)


class Resources(Strict):
    """What one worker holds while it runs. Nothing here changes a result's id.

    teacher_workers: data-parallel workers a teacher. gpus_*: None means one GPU a teacher worker and a quarter of one
    a cell where Ray has GPUs, none otherwise. concurrency: at most this many cells at a time (None: what fits).
    checkpoint_minutes: a running stage saves this often, besides after each epoch. deterministic: on a GPU, ask torch
    for deterministic algorithms; the record says whether they were used (a CPU is always).
    """

    teacher_workers: int = Field(default=1, ge=1)
    cpus_per_teacher_worker: int = Field(default=1, ge=1)
    gpus_per_teacher_worker: float | None = Field(default=None, ge=0)
    cpus_per_cell: int = Field(default=1, ge=1)
    gpus_per_cell: float | None = Field(default=None, ge=0)
    concurrency: int | None = Field(default=None, ge=1)
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    deterministic: bool = False

    @field_validator("gpus_per_teacher_worker", "gpus_per_cell")
    @classmethod
    def _whole_or_a_part_of_one(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and not gpus.is_integer():
            raise ValueError(f"{gpus:g} GPUs: more than one must be a whole number")
        return gpus


class PublishedPair(Strict):
    """A study's figures for one teacher and student, in percent; gain is distilled minus baseline as printed there."""

    teacher: str
    student: str
    baseline: float
    distilled: float


class Published(Strict):
    """What a study reports, to be shown beside our results. protocol: how its accuracy was selected, in words.
    teachers: their accuracy in percent, by label."""

    study: str
    protocol: str
    teachers: dict[str, float] = Field(default_factory=dict)
    pairs: tuple[PublishedPair, ...] = ()


Seed = Annotated[int, Field(ge=0, lt=2**63)]
Temperature = Annotated[float, Field(gt=0)]
Alpha = Annotated[float, Field(ge=0, le=1)]


class GridSpec(Strict):
    """teachers x students x modes x seeds, and for distilled cells x method x temperature x alpha.

    targets: where distilled cells have the teacher's logits from: "cached" computes them once a view for all cells,
    "online" runs the teacher in each cell (for views that cannot be made again). logits: how cached ones are stored.
    view_streams: how many streams of random views the seeds share; seed number i of the grid sees stream i modulo this.
    """

    name: str
    description: str = ""
    dataset: DatasetSpec
    teachers: tuple[TeacherSpec, ...] = ()
    students: Annotated[tuple[ModelSpec, ...], Field(min_length=1)]
    modes: Annotated[tuple[Mode, ...], BeforeValidator(_one_or_many), Field(min_length=1)] = ("baseline", "distilled")
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_one_or_many), Field(min_length=1)] = (0,)
    method: Annotated[tuple[Method, ...], BeforeValidator(_one_or_many), Field(min_length=1)] = ("kd",)
    temperature: Annotated[tuple[Temperature, ...], BeforeValidator(_one_or_many), Field(min_length=1)] = (4.0,)
    alpha: Annotated[tuple[Alpha, ...], BeforeValidator(_one_or_many), Field(min_length=1)] = (0.5,)
    targets: Targets = "cached"
    logits: LogitsFormat = Field(default_factory=LogitsFormat)
    view_streams: int = Field(default=1, ge=1)
    recipe: Recipe = Field(default_factory=Recipe)
    resources: Resources = Field(default_factory=Resources)
    published: Published | None = None

    @field_validator("name")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r}: use letters, digits and . _ + - (it becomes a folder's name)")
        return name

    @field_validator("modes", "seeds", "method", "temperature", "alpha")
    @classmethod
    def _axis_values_are_distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return _distinct(values)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if "distilled" in self.modes and not self.teachers:
            raise ValueError("teachers is empty: distilled cells need at least one (or set modes: [baseline])")
        for axis in ("teachers", "students"):
            labels = [model.shown for model in getattr(self, axis)]
            twice = next((label for i, label in enumerate(labels) if label in labels[:i]), None)
            if twice is not None:
                raise ValueError(f"two {axis} are called {twice!r}: give each a label of its own")
            for i, model in enumerate(getattr(self, axis)):
                try:
                    recipe = self.recipe_of(model)
                except ValidationError as error:
                    raise ValueError(f"{axis}.{i}.{describe(error, Recipe, prefix='recipe')}") from None
                views, dataset = recipe.views, self.dataset
                side = min(dataset.info.height, dataset.info.width) if dataset.is_known else math.inf
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
        if self.published is not None:
            known = {model.shown for model in (*self.teachers, *self.students)}
            named = {*self.published.teachers}.union(*({p.teacher, p.student} for p in self.published.pairs))
            if named - known:
                raise ValueError(f"published names {min(named - known)!r}, which is no teacher or student of the grid")
        if self.view_streams > 1 and any(self.recipe_of(student).views.stream for student in self.students):
            raise ValueError("view_streams numbers the streams itself: leave recipe.views.stream out")
        return self

    def recipe_of(self, model: ModelSpec) -> Recipe:
        """The grid's recipe with the model's overrides. Raises pydantic's ValidationError."""
        merged = _merge(asdict(self.recipe), model.recipe)
        recipe: Recipe = TypeAdapter(Recipe).validate_json(json.dumps(merged), strict=True)
        return recipe


def _merge(base: dict[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merged[key] = _merge(base[key], value)
        else:
            merged[key] = value
    return merged


def describe(error: ValidationError, root: Any, *, prefix: str = "") -> str:
    """The first problem of a validation error on one line: where, what, and for an unknown key the nearest known."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path = [str(part) for part in first["loc"]]
    where = ".".join([prefix, *path] if prefix else path)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_keys(root, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        text = f"{where}: unknown key; {hint}"
    else:
        message = str(first["msg"]).removeprefix("Value error, ")
        given = first.get("input")
        shown = "" if first["type"] == "value_error" or isinstance(given, dict | list) else f" (got {given!r})"
        text = f"{where}: {message}{shown}" if where else message
    more = len(problems) - 1
    return text + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")


def _known_keys(root: Any, path: list[str]) -> list[str]:
    """The keys allowed at a path of the schema, read from its JSON schema."""
    schema = TypeAdapter(root).json_schema()
    definitions = schema.get("$defs", {})

    def resolve(node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node or "anyOf" in node:
            # Of alternatives, the one with keys: the other is null.
            node = next((option for option in node.get("anyOf", []) if "$ref" in option), node)
            if "$ref" not in node:
                break
            node = definitions[node["$ref"].rsplit("/", 1)[-1]]
        return node

    node = resolve(schema)
    for part in path:
        child = node["items"] if part.isdigit() else node.get("properties", {}).get(part, {})
        node = resolve(child)
    return list(node.get("properties", {}))
