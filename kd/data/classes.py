"""The classes of a data set: their order, and whether each of them has pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kd.data.catalog import ClassOrder

SHOWN = 5  # of what is listed in a message


@dataclass
class Labelled:
    """What is known of a data set's labels without its pictures."""

    classes: Sequence[Any] = ()
    """In the order of their numbers."""
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    """int64 by split, -1 for what is no class."""
    usual: Sequence[Any] = ()
    """The classes as they would be had the user said nothing of them."""
    problems: list[str] = field(default_factory=list)
    """Why they are no labels."""
    notes: list[str] = field(default_factory=list)
    """What there is to say of them."""


def natural_key(name: str) -> tuple[list[str | int], str]:
    """2 before 10, and no matter whether a letter is large: the order of timm's folders of images."""
    # Digits stand at the odd places.
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def ordered(names: Iterable[str], order: ClassOrder) -> list[str]:
    return sorted(names, key=natural_key) if order == "natural" else sorted(names)


def listed(items: Sequence[object], *, of: int | None = None) -> str:
    """The first few, and how many more there are (of so many, where not all are given)."""
    count = len(items) if of is None else of
    more = f" and {count - SHOWN:,} more" if count > SHOWN else ""
    return ", ".join(str(item) for item in items[:SHOWN]) + more


def counted(count: int, thing: str, things: str | None = None) -> str:
    return f"{count:,} {thing if count == 1 else things or f'{thing}s'}"


def missing_classes(
    labels: Mapping[str, np.ndarray], classes: Sequence[Any], *, remedy: str
) -> tuple[list[str], list[str]]:
    """Problems: splits without a picture, and classes without a training picture, by number and name. Notes: classes
    that only another split lacks. remedy: what may be done about classes that training lacks."""
    problems = [f"its {split} split has no picture" for split, labels_N in labels.items() if not len(labels_N)]
    notes = []
    for split, labels_N in labels.items():
        absent = np.setdiff1d(np.arange(len(classes)), labels_N)
        if not len(absent) or not len(labels_N):
            continue
        which = listed([_numbered(number, classes) for number in absent.tolist()])
        count = f"{len(absent):,} of its {counted(len(classes), 'class', 'classes')}"
        has = "has" if len(absent) == 1 else "have"
        if split == "train":
            problems.append(f"{count} {has} no training picture: {which} ({remedy})")
        else:
            notes.append(f"warning: {count} {has} no picture in the {split} split: {which}")
    return problems, notes


def _numbered(number: int, classes: Sequence[Any]) -> str:
    name = classes[number]
    return f"{number} ({name})" if isinstance(name, str) else str(number)
