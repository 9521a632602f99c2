"""How a model is trained, as data: frozen, checked on construction, free of heavy imports.

The dataclasses are plain; `__pydantic_config__` only tells pydantic, where a grid file is read, to refuse unknown
keys. Every default here is part of what a result's id means: a changed default needs a new stage version
(`grid.plan.STAGE_VERSIONS`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, assert_never, get_args

from kd.data.views.policy import ViewPolicy
from kd.limits import CLASSES, EPOCHS, FACTOR, IMAGES_AT_ONCE, check_at_most

Optimizer = Literal["adamw", "adam", "sgd"]
Schedule = Literal["constant", "cosine", "step"]
Precision = Literal["auto", "float32", "bfloat16"]
LogitsDtype = Literal["float16", "float32"]


@dataclass(frozen=True, kw_only=True)
class LogitsFormat:
    """How teacher logits are stored."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    dtype: LogitsDtype = "float16"
    """float16 moves a logit by at most one part in two thousand, and a distillation loss by less than one part in a
    thousand unless the student already agrees with the teacher almost entirely."""
    top_k: int | None = None
    """Keep the k largest logits of each sample and only the mean and variance of the others (None: all); smaller, not
    exact."""

    def __post_init__(self) -> None:
        if self.dtype not in get_args(LogitsDtype):
            raise ValueError(f"dtype must be one of {', '.join(get_args(LogitsDtype))}, got {self.dtype!r}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be >= 1, got {self.top_k}")
        if self.top_k is not None:
            check_at_most("top_k", self.top_k, CLASSES)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run: everything but the model, the data and the objective."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    epochs: int = 10
    batch_size: int = 128
    """The effective (global) batch, whatever the number of workers; the last batch of an epoch has what is left over,
    but a single image joins the batch before."""
    micro_batch_size: int | None = None
    """So many images pass through the model at a time (split as an epoch is into batches), and gradients add up to the
    whole batch's (None: all at once). Batch norm then sees micro-batches, so it is part of a result's identity."""
    optimizer: Optimizer = "adamw"
    learning_rate: float = 1e-3
    """The peak."""
    weight_decay: float = 0.01
    momentum: float = 0.9
    """Of "sgd" alone."""
    nesterov: bool = False
    """Of "sgd" alone."""
    schedule: Schedule = "cosine"
    """What the learning rate follows after the warm-up: "cosine" falls towards 0, which the step after the last would
    reach; "step" multiplies by `step_factor` at each of `step_epochs`."""
    warmup_epochs: float = 0.0
    """They rise to the peak linearly."""
    step_epochs: tuple[int, ...] = ()
    step_factor: float = 0.1
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    """Bounds the gradient's global L2 norm."""
    ema_decay: float | None = None
    """Keep an exponential moving average of the weights, w <- decay * w + (1 - decay) * new, after each step; it is
    what is evaluated and kept (None: no average)."""
    precision: Precision = "auto"
    """With "auto", bfloat16 autocast on a GPU, float32 on a CPU; the id says "auto", the record what it was."""
    compile: bool = False
    """Train through torch.compile."""
    evaluate_every: int = 1
    """In epochs; the last epoch is always evaluated."""
    views: ViewPolicy = field(default_factory=ViewPolicy)

    def __post_init__(self) -> None:
        for name, known in (("optimizer", Optimizer), ("schedule", Schedule), ("precision", Precision)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {getattr(self, name)!r}")
        for name, limit in (("epochs", EPOCHS), ("batch_size", IMAGES_AT_ONCE), ("evaluate_every", EPOCHS)):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
            check_at_most(name, getattr(self, name), limit)
        if self.micro_batch_size is not None and not 1 <= self.micro_batch_size <= self.batch_size:
            raise ValueError(
                f"micro_batch_size must be between 1 and batch_size ({self.batch_size}), got {self.micro_batch_size}"
            )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        check_at_most("learning_rate", self.learning_rate, FACTOR)
        for name in ("weight_decay", "momentum", "warmup_epochs", "step_factor"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be >= 0, got {value}")
            check_at_most(name, value, FACTOR)
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise ValueError("nesterov needs optimizer 'sgd' and a momentum above 0")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) is longer than epochs ({self.epochs})")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if self.clip_norm is not None and not (math.isfinite(self.clip_norm) and self.clip_norm > 0):
            raise ValueError(f"clip_norm must be > 0, got {self.clip_norm}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must be between 0 and 1, got {self.ema_decay}")
        if list(self.step_epochs) != sorted(set(self.step_epochs)) or any(e < 1 for e in self.step_epochs):
            raise ValueError(f"step_epochs must be increasing and >= 1, got {list(self.step_epochs)}")
        check_at_most("step_epochs", max(self.step_epochs, default=0), EPOCHS)
        if bool(self.step_epochs) != (self.schedule == "step"):
            raise ValueError("schedule 'step' and step_epochs go together: give both or neither")

    def learning_rate_at(self, step: int, *, steps_per_epoch: int) -> float:
        """The learning rate of optimizer step `step` (0-based), a pure function, so that resuming needs no state."""
        warmup_steps = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup_steps:
            return self.learning_rate * (step + 1) / warmup_steps
        match self.schedule:
            case "constant":
                return self.learning_rate
            case "step":
                passed = sum(step >= epoch * steps_per_epoch for epoch in self.step_epochs)
                return self.learning_rate * self.step_factor**passed
            case "cosine":
                total = self.epochs * steps_per_epoch - warmup_steps
                return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(total, 1)))
            case _:
                assert_never(self.schedule)
