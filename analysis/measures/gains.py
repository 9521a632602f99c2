"""The gains of distillation as frames: what every table stands on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import polars as pl

from analysis.measures.pairs import POINT, VAL, Pair, by_seed, pairs
from analysis.read.grids import Records
from analysis.read.schema import AXES
from analysis.stats import (
    bootstrap_intervals,
    effect,
    holm,
    p_paired_t,
    p_sign_flip,
    show_spread,
    summarize,
)

GAINS_SCHEMA: dict[str, type[pl.DataType]] = {
    "grid": pl.String,
    "experiment": pl.String,
    "teacher": pl.String,
    "teacher_parameters": pl.Int64,
    "teacher_percent": pl.Float64,
    "student": pl.String,
    "student_parameters": pl.Int64,
    **AXES,
    "baseline_mean_percent": pl.Float64,
    "baseline_std_points": pl.Float64,
    "baseline_n": pl.Int64,
    "distilled_mean_percent": pl.Float64,
    "distilled_std_points": pl.Float64,
    "distilled_n": pl.Int64,
    "gain_mean_points": pl.Float64,
    "gain_low_points": pl.Float64,
    "gain_high_points": pl.Float64,
    "gain_n": pl.Int64,
    "gain_p": pl.Float64,
    "gain_p_exact": pl.Float64,
    "gain_p_holm": pl.Float64,
    "gain_tests": pl.Int64,
    "gain_boot_low_points": pl.Float64,
    "gain_boot_high_points": pl.Float64,
    "effect": pl.String,
    "val_mean_percent": pl.Float64,
    "val_n": pl.Int64,
    "retention_percent": pl.Float64,
    "compression": pl.Float64,
}


def _corrected(found: Sequence[Pair], records: Records, *, point: str) -> tuple[list[float | None], int]:
    """Holm's p of each pair, and for how many tests: those of the whole grids, whatever --where has left of them. A
    test that stands on the very same cells in two grids is one."""
    whole = [] if records.whole is None else pairs(records.whole, point=point)
    family = {tuple(one.planned.values()): one for one in [*whole, *found]}
    tests = {one.stages: p_paired_t(list(one.gains.values())) for one in family.values()}
    p_holm = dict(zip(tests, holm([*tests.values()]), strict=True))
    return [p_holm[one.stages] for one in found], sum(p is not None for p in tests.values())


def gains(records: Records, *, point: str = POINT) -> pl.DataFrame:
    """One row a grid, teacher, student and setting (AXES), in the grids' order. The records' accuracies are fractions;
    here they are in percent, and what differs or spreads in points, as the columns say.

    gain_low_points and gain_high_points: Student's t interval of 95 %, on which `effect` stands; gain_boot_low_points
    and gain_boot_high_points: the percentile bootstrap's. gain_p: paired t-test, gain_p_holm: corrected for all
    gain_tests of the whole grids; gain_p_exact: sign flips, of which few seeds give no small p. The intervals and p are
    null for one seed, and those of t and bootstrap for equal gains too. val_mean_percent: of the distilled on the
    validation split at the last epoch. retention_percent: distilled mean of the teacher's top1. compression: in
    parameters. point: the record's column that is compared; BEST_TEST is selected on the test split, as published
    tables do.
    """
    cells = records.cells
    facts = cells.filter(pl.col("kind") == "teacher").select("grid", "teacher", point, "parameters")
    teachers = {(grid, teacher): (top1, size) for grid, teacher, top1, size in facts.iter_rows()}
    done = cells.filter(pl.col("kind") == "cell", pl.col("status") == "done", pl.col(point).is_not_null())
    sizes = done.group_by("grid", "student").agg(pl.col("parameters").first())
    students = {(grid, student): size for grid, student, size in sizes.iter_rows()}
    found = pairs(records, point=point)
    titles = _titles([one.planned for one in found])
    p_holms, tests = _corrected(found, records, point=point)
    gained = [list(one.gains.values()) for one in found]
    bounds = bootstrap_intervals(gained)
    rows = []
    for one, gain, experiment, p_holm, boot in zip(found, gained, titles, p_holms, bounds, strict=True):
        row = one.planned
        top1, size = teachers.get((row["grid"], row["teacher"]), (None, None))
        teacher_top1 = None if top1 is None else 100 * top1
        parameters = (size, students.get((row["grid"], row["student"])))
        distilled = _columns("distilled", one.distilled)
        rows.append(
            {
                "grid": row["grid"],
                "experiment": experiment,
                "teacher": row["teacher"],
                "teacher_parameters": parameters[0],
                "teacher_percent": teacher_top1,
                "student": row["student"],
                "student_parameters": parameters[1],
                **{axis: row[axis] for axis in AXES},
                **_columns("baseline", one.baseline),
                **distilled,
                **_gain(gain, boot),
                "gain_p_holm": p_holm,
                "gain_tests": tests,
                "val_mean_percent": _columns("val", one.val)["val_mean_percent"],
                "val_n": len(one.val),
                "retention_percent": percentage(distilled["distilled_mean_percent"], teacher_top1),
                "compression": ratio(*parameters),
            }
        )
    return pl.DataFrame(rows, schema=GAINS_SCHEMA)


def _gain(gains: list[float], bounds: tuple[float, float] | None) -> dict[str, float | int | str | None]:
    if not gains:
        return {"gain_n": 0}
    gain = summarize(gains)
    found: dict[str, float | int | str | None] = {"gain_mean_points": gain.mean, "gain_n": gain.n, "effect": "unclear"}
    if show_spread(gains) and bounds is not None:
        found |= {
            "gain_low_points": gain.low,
            "gain_high_points": gain.high,
            "effect": effect(gain),
            "gain_p": p_paired_t(gains),
        }
        found |= {"gain_boot_low_points": bounds[0], "gain_boot_high_points": bounds[1]}
    return found | {"gain_p_exact": p_sign_flip(gains)}


def baselines(records: Records) -> pl.DataFrame:
    """One row a grid's student trained alone: accuracy in percent, on test and (val_mean_percent) on validation."""
    cells = records.cells.filter(pl.col("mode") == "baseline")
    done = cells.filter(pl.col("status") == "done", pl.col(POINT).is_not_null())
    found = by_seed(done, ["grid", "student"], POINT)
    val = by_seed(done.filter(pl.col(VAL).is_not_null()), ["grid", "student"], VAL)
    planned = cells.group_by("grid", "student", maintain_order=True).agg(pl.col("parameters").drop_nulls().first())
    rows = [
        {"grid": grid, "student": student, "student_parameters": size}
        | _columns("baseline", found.get((grid, student), {}))
        | {"val_mean_percent": _columns("val", val.get((grid, student), {}))["val_mean_percent"]}
        for grid, student, size in planned.iter_rows()
    ]
    columns = (
        "grid",
        "student",
        "student_parameters",
        "baseline_mean_percent",
        "baseline_std_points",
        "baseline_n",
        "val_mean_percent",
    )
    return pl.DataFrame(rows, schema={name: GAINS_SCHEMA[name] for name in columns})


def ratio(above: float | None, below: float | None) -> float | None:
    """above / below, where both are known."""
    return above / below if above is not None and below else None


def percentage(part: float | None, whole: float | None) -> float | None:
    found = ratio(part, whole)
    return None if found is None else 100 * found


def crossed(frame: pl.DataFrame) -> list[str]:
    """The axes of distilled cells that have several values."""
    return [axis for axis in AXES if frame[axis].drop_nulls().n_unique() > 1]


def _columns(prefix: str, values: dict[int, float]) -> dict[str, float | int | None]:
    summary = summarize(list(values.values())) if values else None
    return {
        f"{prefix}_mean_percent": summary.mean if summary else None,
        f"{prefix}_std_points": summary.std if summary else None,
        f"{prefix}_n": len(values),
    }


def _titles(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """'ViT → ResNet' from the labels' families (up to the first - _ or space), unless two pairs of a grid would be
    alike: then all pairs of the grid are called by their labels."""

    def family(label: str) -> str:
        return re.split(r"[-_ ]", label, maxsplit=1)[0] or label

    labels = {(row["grid"], row["teacher"], row["student"]) for row in rows}
    families = Counter((grid, family(teacher), family(student)) for grid, teacher, student in labels)
    alike = {grid for (grid, *_), count in families.items() if count > 1}

    def called(row: Mapping[str, str], call: Callable[[str], str]) -> str:
        return f"{call(row['teacher'])} → {call(row['student'])}"

    return [called(row, str if row["grid"] in alike else family) for row in rows]
