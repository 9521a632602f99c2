"""The gains of distillation as frames: what every table stands on."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import polars as pl

from analysis.measures.pairs import POINT, VAL, by_seed, pairs
from analysis.measures.verdicts import Verdict, by_key, key, verdicts
from analysis.read.grids import Records
from analysis.read.schema import AXES
from analysis.stats import ModeratedGain, bootstrap_intervals, interval_of, p_sign_flip, show_spread, summarize

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
    "gain_sd_points": pl.Float64,
    "gain_df": pl.Float64,
    "gain_n": pl.Int64,
    "gain_p": pl.Float64,
    "gain_p_exact": pl.Float64,
    "gain_p_holm": pl.Float64,
    "gain_tests": pl.Int64,
    "gain_judged": pl.Int64,
    "gain_boot_low_points": pl.Float64,
    "gain_boot_high_points": pl.Float64,
    "effect": pl.String,
    "val_mean_percent": pl.Float64,
    "val_n": pl.Int64,
    "retention_percent": pl.Float64,
    "compression": pl.Float64,
}


def gains(records: Records, *, point: str = POINT) -> pl.DataFrame:
    """One row a grid, teacher, student and setting (AXES), in the grids' order. The records' accuracies are fractions;
    here they are in percent, and what differs or spreads in points, as the columns say.

    gain_low_points and gain_high_points: 95 % interval of the moderated t (`analysis.stats.moderated`), of this pair
    alone; gain_sd_points and gain_df: the spread of a single gain that it stands on, from all runs of the grid, and its
    degrees of freedom. gain_boot_low_points and gain_boot_high_points: the percentile bootstrap's; gain_p_exact: sign
    flips, of which few seeds give no small p. They are null for one seed, and those of t and bootstrap where no spread
    shows.

    effect is the verdict on the pair: 'gain' or 'negative transfer' where gain_p_holm is below 0.05, else 'unclear';
    null without a gain. gain_p (moderated t) and gain_p_holm, corrected for the gain_tests pairs that the grid plans
    (of which gain_judged have a p so far), are of the whole grid, whatever --where leaves of it, and at POINT alone:
    null at another point.

    val_mean_percent: of the distilled on the validation split at the last epoch. retention_percent: distilled mean of
    the teacher's top1. compression: in parameters. point: the record's column that is compared; BEST_TEST is
    selected on the test split, as published tables do.
    """
    cells = records.cells
    facts = cells.filter(pl.col("kind") == "teacher").select("grid", "teacher", point, "parameters")
    teachers = {(grid, teacher): (top1, size) for grid, teacher, top1, size in facts.iter_rows()}
    done = cells.filter(pl.col("kind") == "cell", pl.col("status") == "done", pl.col(point).is_not_null())
    sizes = done.group_by("grid", "student").agg(pl.col("parameters").first())
    students = {(grid, student): size for grid, student, size in sizes.iter_rows()}
    found = pairs(records, point=point)
    titles = _titles([one.planned for one in found])
    judged = verdicts(records) if point == POINT else {}
    moderated = by_key(found if records.whole is None else pairs(records.whole, point=point))
    gained = [list(one.gains.values()) for one in found]
    bounds = bootstrap_intervals(gained)
    rows = []
    for one, gain, experiment, boot in zip(found, gained, titles, bounds, strict=True):
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
                **_gain(gain, moderated.get(key(one)), boot),
                **_verdict(gain, judged.get(key(one))),
                "val_mean_percent": _columns("val", one.val)["val_mean_percent"],
                "val_n": len(one.val),
                "retention_percent": percentage(distilled["distilled_mean_percent"], teacher_top1),
                "compression": ratio(*parameters),
            }
        )
    return pl.DataFrame(rows, schema=GAINS_SCHEMA)


def _gain(
    gains: list[float], whole: ModeratedGain | None, bounds: tuple[float, float] | None
) -> dict[str, float | int | None]:
    """whole: the pair's gain over all of its seeds, of which `gains` may be a part; the spread is of them all."""
    if not gains:
        return {"gain_n": 0}
    mean = summarize(gains).mean
    found: dict[str, float | int | None] = {"gain_mean_points": mean, "gain_n": len(gains)}
    if len(gains) > 1 and whole is not None and whole.spread is not None:
        low, high = interval_of(mean, len(gains), whole.spread)
        found |= {"gain_low_points": low, "gain_high_points": high}
        found |= {"gain_sd_points": math.sqrt(whole.spread.variance), "gain_df": whole.spread.df}
    if show_spread(gains) and bounds is not None:
        found |= {"gain_boot_low_points": bounds[0], "gain_boot_high_points": bounds[1]}
    return found | {"gain_p_exact": p_sign_flip(gains)}


def _verdict(gains: list[float], verdict: Verdict | None) -> dict[str, float | int | str | None]:
    if verdict is None:
        return {}
    return {
        "gain_p": verdict.p,
        "gain_p_holm": verdict.p_holm,
        "gain_tests": verdict.tests,
        "gain_judged": verdict.judged,
        "effect": verdict.effect if gains else None,
    }


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
