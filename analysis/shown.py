"""How figures are shown to people, as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from grid.contract.files.layout import CALLED
from grid.contract.plan import NUMBERS, SETTING

NEGATIVE, NEGATIVE_CLEAR, GAIN_CLEAR = "▽", "▼", "▲"
UNKNOWN = "—"

# What axes are called where there is little room.
SHORT = {"temperature": "T"}

FrameRow = Mapping[str, Any]


def value(of: object) -> str:
    """An axis' value: 4.0 -> '4'; nothing where a method has none."""
    return f"{of:g}" if isinstance(of, float) else "" if of is None else str(of)


def number(figure: float | None, digits: int = 2) -> str:
    return UNKNOWN if figure is None else f"{figure:.{digits}f}"


def percent(figure: float | None) -> str:
    """91.54 -> '91.5 %'."""
    return UNKNOWN if figure is None else f"{figure:.1f} %"


def times(figure: float | None) -> str:
    """A ratio: 8.04 -> '8.0x'."""
    return UNKNOWN if figure is None else f"{figure:.1f}x"


def setting(row: FrameRow, axes: Sequence[str]) -> str:
    """'temperature 4, alpha 0.5', of these axes; without those that its method has not."""
    known = [axis for axis in axes if row[axis] is not None]
    return ", ".join(row[axis] if axis == SETTING else f"{axis} {value(row[axis])}" for axis in known)


def shortened(setting: str) -> str:
    """'T 4, alpha 0.5'."""
    for axis, short in SHORT.items():
        setting = setting.replace(f"{axis} ", f"{short} ")
    return setting


def pair(row: FrameRow) -> str:
    return f"{row['teacher']} → {row['student']}"


def with_setting(called: str, row: FrameRow, axes: Sequence[str]) -> str:
    """'ViT → ResNet, temperature 4' of what is called 'ViT → ResNet'."""
    return ", ".join(filter(None, [called, setting(row, axes)]))


def shown_accuracy(row: FrameRow, prefix: str) -> str:
    """'81.00 ± 1.00 (n=3)'."""
    mean, std, n = row[f"{prefix}_mean_percent"], row[f"{prefix}_std_points"], row[f"{prefix}_n"]
    if mean is None:
        return UNKNOWN
    spread = f" ± {std:.2f}" if std is not None else ""
    return f"{mean:.2f}{spread} (n={n})"


def shown_gain(row: FrameRow, *, interval: bool = True) -> str:
    """'+2.00 [+0.48, +3.52] ▲', or without the interval '+2.00 ▲'; with n where the means beside it have another."""
    mean, low, high = row["gain_mean_points"], row["gain_low_points"], row["gain_high_points"]
    if mean is None:
        return UNKNOWN
    mean = round(mean, 2) + 0.0  # what shows as 0 is neither above nor below
    between = f" [{low:+.2f}, {high:+.2f}]" if low is not None and interval else ""
    n = row["gain_n"]
    if (interval and low is None) or any(n != row.get(f"{mode}_n", n) for mode in ("baseline", "distilled")):
        between += f" (n={n})"
    mark = {"gain": GAIN_CLEAR, "negative transfer": NEGATIVE_CLEAR}.get(str(row["effect"]))
    mark = mark or (NEGATIVE if mean < 0 else "")
    return f"{mean:+.2f}{between} {mark}".rstrip()


def shown_n(frame: pl.DataFrame) -> str:
    """'n = 3', 'n = 1 to 3', of the gains in a frame."""
    counts = sorted(set(frame["gain_n"]))
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def title(row: FrameRow) -> str:
    """'ResNet from ViT, seed 0, T 4, alpha 0.5', 'ResNet alone, seed 0', 'teacher ViT', 'teacher logits'."""
    if row["kind"] == "teacher":
        return f"teacher {row['teacher']}"
    if row["kind"] != "cell":
        return CALLED[row["kind"]]
    how = "alone" if row["teacher"] is None else f"from {row['teacher']}"
    values = [f"{SHORT.get(axis, axis)} {row[axis]:g}" for axis in NUMBERS if row.get(axis) is not None]
    return ", ".join([f"{row['student']} {how}, seed {row['seed']}", *values, *filter(None, [row.get(SETTING)])])
