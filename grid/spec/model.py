"""Which model, with which weights to start from."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from grid.contract.credentials import credentials_in
from grid.identity import canonical, canonical_json
from grid.spec.strict import Name, Strict, one_or_many, path_alone, shortened
from kd.limits import IMAGE_SIDE, LAYERS

Positive = Annotated[float, Field(gt=0)]

# As timm and ours call how many blocks a model, or each of its stages, has.
_LAYERS = re.compile("^(num_)?(depths?|layers|blocks)$")


class Normalize(Strict):
    """What pixels, brought to [0, 1], are normalised with: (x - mean) / std, a number a channel."""

    mean: Annotated[tuple[float, ...], BeforeValidator(one_or_many)]
    std: Annotated[tuple[Positive, ...], BeforeValidator(one_or_many)]

    @model_validator(mode="after")
    def _of_the_same_channels(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels and std {len(self.std)}")
        return self


def _sum(value: Any) -> int:
    if isinstance(value, list | tuple):
        return sum(map(_sum, value))
    return value if isinstance(value, int) else 0


class ModelSpec(Strict):
    """A model by timm's name or one of ours, or by a factory of the user's, with its constructor's arguments."""

    name: Name
    factory: Name | None = None
    """FILE.py:FUNCTION or MODULE:FUNCTION; called with num_classes, in_chans where it takes it, and args."""
    args: dict[str, Any] = Field(default_factory=dict)
    pretrained: bool = False
    """Start from timm's weights."""
    checkpoint: Name | None = None
    """Start from those of a file or URL, a state dict as safetensors or as torch.save writes it."""
    image_size: int | None = Field(default=None, ge=1, le=IMAGE_SIDE)
    """Views are resized to it (default: the native grid)."""
    normalize: Normalize | None = None
    """Default: the statistics of the training images."""
    label: Name = ""
    """How tables call it (default: its name)."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """What differs from the grid's recipe for this model."""
    code: dict[str, str] | None = None
    """Filled in when it is found (`grid.read.grid_file.load_grid`)."""
    checkpoint_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Filled in when it is found (`grid.read.grid_file.load_grid`)."""

    _no_url = field_validator("factory")(path_alone)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"factory": value} if ":" in value else {"name": value}
        if isinstance(value, dict) and isinstance(value.get("factory"), str):
            place, colon, function = value["factory"].rpartition(":")
            if not colon or not place or not function.isidentifier():
                raise ValueError(f"factory {shortened(value['factory'])}: expected FILE.py:FUNCTION or MODULE:FUNCTION")
            if value.get("name", function) != function:
                raise ValueError(f"give name or factory, not both (to rename {function!r} in tables, give a label)")
            value = {**value, "name": function}
        return value

    @field_validator("args")
    @classmethod
    def _args_are_ours_to_set(cls, args: dict[str, Any]) -> dict[str, Any]:
        for taken in ("num_classes", "in_chans", "pretrained", "model_name"):
            if taken in args:
                raise ValueError(f"{taken} follows from the data set or the entry itself: leave it out of args")
        for file in ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            if file in args:
                raise ValueError(
                    f"{file} would make the result depend on a file that its id does not know: give the entry itself a "
                    "checkpoint"
                )
        return args

    @field_validator("checkpoint")
    @classmethod
    def _no_secret(cls, checkpoint: str | None) -> str | None:
        problem = credentials_in(checkpoint) if checkpoint is not None else None
        if problem is not None:
            raise ValueError(f"the URL {problem}: download the file, and give its path")
        return checkpoint

    @field_validator("args", "recipe")
    @classmethod
    def _has_an_id(cls, values: dict[str, Any]) -> dict[str, Any]:
        canonical(values)
        return values

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> Self:
        if self.pretrained and self.checkpoint is not None:
            raise ValueError("give pretrained or checkpoint, not both: both say which weights to start from")
        if self.pretrained and self.factory is not None:
            raise ValueError(
                "pretrained is for timm's models: give the factory an argument of its own, or a checkpoint"
            )
        return self

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        """In a bearable time, where the names of its arguments say so; what a factory makes of them is its own."""
        for name, value in self.args.items() if self.factory is None else ():
            layers = _sum(value) if _LAYERS.search(name) else 0
            if layers > LAYERS:
                raise ValueError(f"args.{name} asks for {layers:,} layers: a model may have {LAYERS:,}")
        return self

    @property
    def is_given(self) -> bool:
        """Whether it is used as its checkpoint has it, and not trained: a teacher may be."""
        return False

    @property
    def shown(self) -> str:
        return self.label or self.name

    @property
    def architecture(self) -> dict[str, Any]:
        """What is built, whatever its weights: all that its size and cost depend on. It goes into ids."""
        built: dict[str, Any] = {"name": self.name, "args": self.args}
        if self.factory is None:
            return built
        if self.code is None:
            return built | {"factory": self.factory}
        module = self.factory.rpartition(":")[0].replace("\\", "/").rpartition("/")[2]
        return built | {
            "factory": f"{module}:{self.name}",
            "code": hashlib.sha256(canonical_json(self.code).encode()).hexdigest(),
        }


class TeacherSpec(ModelSpec):
    """A teacher is trained once, from this seed; one given as a checkpoint is not, unless `train` asks for it."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    train: bool | None = None

    @model_validator(mode="after")
    def _untrained_only_with_weights(self) -> Self:
        if self.train is False and self.checkpoint is None:
            raise ValueError("train: false needs the teacher's weights: give a checkpoint")
        return self

    @property
    def is_given(self) -> bool:
        return self.checkpoint is not None and not self.train
