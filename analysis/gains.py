"""The gains of distillation as frames: what every table stands on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.load import Grid
from analysis.stats import (
    CONFIDENCE,
    bonferroni,
    bootstrap_interval,
    effect,
    holm,
    p_paired_t,
    p_sign_flip,
    paired_gains,
    summarize,
)

AXES = ("method", "temperature", "alpha")
POINT = "test_top1_last"
BEST_TEST = "best_test_top1"
VAL = "val_top1_last"

GAINS_SCHEMA: dict[str, type[pl.DataType]] = {
    "experiment": pl.String,
    "teacher": pl.String,
    "teacher_parameters": pl.Int64,
    "teacher_top1": pl.Float64,
    "student": pl.String,
    "student_parameters": pl.Int64,
    "method": pl.String,
    "temperature": pl.Float64,
    "alpha": pl.Float64,
    "baseline_mean": pl.Float64,
    "baseline_std": pl.Float64,
    "baseline_n": pl.Int64,
    "distilled_mean": pl.Float64,
    "distilled_std": pl.Float64,
    "distilled_n": pl.Int64,
    "gain_mean": pl.Float64,
    "gain_low": pl.Float64,
    "gain_high": pl.Float64,
    "gain_n": pl.Int64,
    "gain_p": pl.Float64,
    "gain_p_exact": pl.Float64,
    "gain_p_holm": pl.Float64,
    "gain_boot_low": pl.Float64,
    "gain_boot_high": pl.Float64,
    "effect": pl.String,
    "val_mean": pl.Float64,
    "val_n": pl.Int64,
    "retention": pl.Float64,
    "compression": pl.Float64,
}


@dataclass(frozen=True)
class Pair:
    """A row of the plan (teacher, student and the axes) with its accuracies in percent by seed, as far as done."""

    planned: dict[str, Any]
    baseline: dict[int, float]
    distilled: dict[int, float]
    val: dict[int, float]

    @property
    def gains(self) -> dict[int, float]:
        return paired_gains(self.distilled, self.baseline)


def pairs(grid: Grid, *, point: str = POINT) -> list[Pair]:
    """Each teacher, student, method, temperature and alpha, in the grid's order."""
    cells = grid.cells.filter(pl.col("kind") == "cell")
    done = cells.filter(pl.col("status") == "done", pl.col(point).is_not_null())
    baselines = {
        str(key[0]): _by_seed(group, point)
        for key, group in done.filter(pl.col("mode") == "baseline").group_by("student")
    }
    keys = ["teacher", "student", *AXES]
    planned = cells.filter(pl.col("mode") == "distilled").unique(keys, maintain_order=True, keep="first")
    teachers = grid.cells.filter(pl.col("kind") == "teacher")["teacher"]
    order = {label: i for i, label in enumerate(teachers)}
    found = []
    for row in sorted(planned.select(keys).iter_rows(named=True), key=lambda row: order[row["teacher"]]):
        same = pl.all_horizontal(pl.col(key).eq_missing(pl.lit(row[key], dtype=cells.schema[key])) for key in keys)
        taught = done.filter(same)
        val = _by_seed(taught.filter(pl.col(VAL).is_not_null()), VAL)
        found.append(Pair(row, baselines.get(row["student"], {}), _by_seed(taught, point), val))
    return found


def gains(grid: Grid, *, point: str = POINT, simultaneous: bool = False) -> pl.DataFrame:
    """One row a teacher, student, method, temperature and alpha, in the grid's order. Accuracies in percent.

    gain_low and gain_high: Student's t interval of 95 %, on which `effect` stands; gain_boot_low and gain_boot_high:
    the percentile bootstrap's. simultaneous: intervals (both) that hold together with 95 %, by Bonferroni. gain_p:
    paired t-test, gain_p_holm: corrected for the rows that have one; gain_p_exact: sign flips, of which few seeds give
    no small p. All are null for one seed. val_mean: of the distilled on the validation split at the last epoch.
    retention: distilled mean of the teacher's top1, in percent. compression: in parameters. point: the record's column
    that is compared; BEST_TEST is selected on the test split, as published tables do.
    """
    teachers = {row["teacher"]: row for row in grid.cells.filter(pl.col("kind") == "teacher").iter_rows(named=True)}
    done = grid.cells.filter(pl.col("kind") == "cell", pl.col("status") == "done", pl.col(point).is_not_null())
    students = dict(
        done.group_by("student").agg(pl.col("parameters").first()).select("student", "parameters").iter_rows()
    )
    found = pairs(grid, point=point)
    titles = _titles([(pair.planned["teacher"], pair.planned["student"]) for pair in found])
    tested = sum(len(pair.gains) > 1 for pair in found)
    confidence = bonferroni(tested) if simultaneous else CONFIDENCE
    corrected = holm([p_paired_t(list(pair.gains.values())) for pair in found])
    rows = []
    for pair, p_holm in zip(found, corrected, strict=True):
        row = pair.planned
        teacher = teachers[row["teacher"]]
        teacher_top1 = None if teacher[point] is None else 100 * teacher[point]
        parameters = (teacher["parameters"], students.get(row["student"]))
        taught = _columns("distilled", pair.distilled)
        rows.append(
            {
                "experiment": titles[row["teacher"], row["student"]],
                "teacher": row["teacher"],
                "teacher_parameters": parameters[0],
                "teacher_top1": teacher_top1,
                "student": row["student"],
                "student_parameters": parameters[1],
                **{axis: row[axis] for axis in AXES},
                **_columns("baseline", pair.baseline),
                **taught,
                **_gain(list(pair.gains.values()), confidence),
                "gain_p_holm": p_holm,
                "val_mean": _columns("val", pair.val)["val_mean"],
                "val_n": len(pair.val),
                "retention": percentage(taught["distilled_mean"], teacher_top1),
                "compression": ratio(*parameters),
            }
        )
    return pl.DataFrame(rows, schema=GAINS_SCHEMA)


def _gain(gains: list[float], confidence: float) -> dict[str, float | int | str | None]:
    if not gains:
        return {"gain_n": 0}
    gain = summarize(gains, confidence=confidence)
    boot_low, boot_high = bootstrap_interval(gains, confidence=confidence) or (None, None)
    return {
        "gain_mean": gain.mean,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "gain_n": gain.n,
        "gain_p": p_paired_t(gains),
        "gain_p_exact": p_sign_flip(gains),
        "gain_boot_low": boot_low,
        "gain_boot_high": boot_high,
        "effect": effect(gain),
    }


def baselines(grid: Grid) -> pl.DataFrame:
    """One row a student trained alone: accuracy in percent, for grids without distilled cells."""
    done = grid.cells.filter(pl.col("mode") == "baseline")
    rows = []
    for key, group in done.group_by("student", maintain_order=True):
        values = _by_seed(group.filter(pl.col("status") == "done", pl.col(POINT).is_not_null()), POINT)
        parameters = group["parameters"].drop_nulls()
        rows.append(
            {
                "student": key[0],
                "student_parameters": parameters[0] if len(parameters) else None,
                **_columns("baseline", values),
            }
        )
    columns = ("student", "student_parameters", "baseline_mean", "baseline_std", "baseline_n")
    return pl.DataFrame(rows, schema={name: GAINS_SCHEMA[name] for name in columns})


def ratio(above: float | None, below: float | None) -> float | None:
    """above / below, where both are known."""
    return above / below if above is not None and below else None


def percentage(part: float | None, whole: float | None) -> float | None:
    found = ratio(part, whole)
    return None if found is None else 100 * found


def crossed(frame: pl.DataFrame) -> list[str]:
    """The axes of distilled cells that have several values."""
    return [axis for axis in AXES if frame[axis].n_unique() > 1]


def _by_seed(cells: pl.DataFrame, point: str) -> dict[int, float]:
    """Percent by seed, without the last bits of 100 * 0.913, which would make equal accuracies differ."""
    return {int(seed): round(100 * float(value), 9) for seed, value in cells.select("seed", point).iter_rows()}


def _columns(prefix: str, values: dict[int, float]) -> dict[str, float | int | None]:
    summary = summarize(list(values.values())) if values else None
    return {
        f"{prefix}_mean": summary.mean if summary else None,
        f"{prefix}_std": summary.std if summary else None,
        f"{prefix}_n": len(values),
    }


def _titles(pairs: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """'ViT → ResNet' from the labels' families (up to the first - _ or space), unless two would be alike."""

    def family(label: str) -> str:
        return re.split(r"[-_ ]", label, maxsplit=1)[0] or label

    short = {pair: f"{family(pair[0])} → {family(pair[1])}" for pair in dict.fromkeys(pairs)}
    if len(set(short.values())) == len(short):
        return short
    return {pair: f"{pair[0]} → {pair[1]}" for pair in short}
