"""Which model, with which weights to start from."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from grid.identity import canonical
from grid.spec.strict import Strict


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
