"""The gains of distillation as frames: what every table stands on."""

from __future__ import annotations

import re

import polars as pl

from analysis.load import Grid
from analysis.stats import effect, paired_gains, summarize

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
    "effect": pl.String,
    "val_mean": pl.Float64,
    "val_n": pl.Int64,
    "retention": pl.Float64,
    "compression": pl.Float64,
}


def gains(grid: Grid, *, point: str = POINT) -> pl.DataFrame:
    """One row a teacher, student, method, temperature and alpha, in the grid's order. Accuracies in percent.

    val_mean: of the distilled on the validation split at the last epoch. retention: distilled mean of the teacher's
    top1, in percent. compression: in parameters. point: the record's column that is compared; BEST_TEST is selected
    on the test split, as published tables do.
    """
    cells = grid.cells.filter(pl.col("kind") == "cell")
    done = cells.filter(pl.col("status") == "done", pl.col(point).is_not_null())
    baselines = {
        str(key[0]): _by_seed(group, point)
        for key, group in done.filter(pl.col("mode") == "baseline").group_by("student")
    }
    teachers = {row["teacher"]: row for row in grid.cells.filter(pl.col("kind") == "teacher").iter_rows(named=True)}
    students = dict(
        done.group_by("student").agg(pl.col("parameters").first()).select("student", "parameters").iter_rows()
    )
    keys = ["teacher", "student", *AXES]
    planned = cells.filter(pl.col("mode") == "distilled").unique(keys, maintain_order=True, keep="first")
    order = {label: i for i, label in enumerate(teachers)}
    titles = _titles([(str(t), str(s)) for t, s in planned.select("teacher", "student").iter_rows()])
    rows = []
    for row in sorted(planned.iter_rows(named=True), key=lambda row: order[row["teacher"]]):
        same = pl.all_horizontal(pl.col(key).eq_missing(pl.lit(row[key], dtype=cells.schema[key])) for key in keys)
        distilled = _by_seed(done.filter(same), point)
        val = _by_seed(done.filter(same, pl.col(VAL).is_not_null()), VAL)
        baseline = baselines.get(row["student"], {})
        teacher = teachers[row["teacher"]]
        teacher_top1 = None if teacher[point] is None else 100 * teacher[point]
        paired = paired_gains(distilled, baseline)
        gain = summarize(list(paired.values())) if paired else None
        parameters = (teacher["parameters"], students.get(row["student"]))
        taught = _columns("distilled", distilled)
        rows.append(
            {
                "experiment": titles[row["teacher"], row["student"]],
                "teacher": row["teacher"],
                "teacher_parameters": parameters[0],
                "teacher_top1": teacher_top1,
                "student": row["student"],
                "student_parameters": parameters[1],
                **{axis: row[axis] for axis in AXES},
                **_columns("baseline", baseline),
                **taught,
                "gain_mean": gain.mean if gain else None,
                "gain_low": gain.low if gain else None,
                "gain_high": gain.high if gain else None,
                "gain_n": gain.n if gain else 0,
                "effect": effect(gain) if gain else None,
                "val_mean": _columns("val", val)["val_mean"],
                "val_n": len(val),
                "retention": percentage(taught["distilled_mean"], teacher_top1),
                "compression": ratio(*parameters),
            }
        )
    return pl.DataFrame(rows, schema=GAINS_SCHEMA)


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
