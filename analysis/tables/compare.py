"""A grid's results beside those of the study it repeats, at the study's protocol and at ours."""

from __future__ import annotations

from typing import Any

import polars as pl

from analysis.document import Document, Heading, Items, Note, Part, Table
from analysis.measures.efficiency import efficiency
from analysis.measures.gains import crossed, gains, ratio
from analysis.measures.pairs import BEST_TEST, POINT
from analysis.measures.published import INSIDE, OUTSIDE, compare, published_figures
from analysis.read.grids import Grid
from analysis.shown import (
    FrameRow,
    number,
    pair,
    percent,
    shown_accuracy,
    shown_gain,
    times,
    value,
    with_setting,
)
from analysis.tables.models import count, digits, shown_latency, shown_training, timing_notes
from analysis.tables.standing import unfinished

RATIOS = ("parameters", "size", "time")
NO_INTERVAL = "no interval"


def comparison(grid: Grid) -> Document:
    """The study's line and our two for each pair, then the teachers, the models and the ratios between them."""
    published, frame = published_figures(grid), compare(grid)
    varying = crossed(frame)
    figures = [*(axis.capitalize() for axis in varying), "Baseline", "Distilled", "Gain", "Retention"]
    header = ["Teacher", "Student", *figures]
    header.insert(2 + len(varying), "Whose")
    lines = []
    for row in frame.iter_rows(named=True):
        axes = [value(row[axis]) for axis in varying]
        labels = [row["teacher"], row["student"], *axes]
        said = [
            f"{row['published_baseline_percent']:.2f}",
            f"{row['published_distilled_percent']:.2f}",
            f"{row['published_gain_points']:+.2f}",
        ]
        lines.append([*labels, "published", *said, percent(row["published_retention_percent"])])
        if row["method"] is None:
            continue
        at_last = {name.removesuffix("_last"): figure for name, figure in row.items() if name.endswith("_last")}
        for whose, at in (("ours, best test", row), ("ours, last epoch", at_last)):
            ours = [shown_accuracy(at, "baseline"), shown_accuracy(at, "distilled"), shown_gain(at)]
            lines.append([*("" for _ in labels), whose, *ours, percent(at["retention_percent"])])
    table = Table("pairs", frame, header, lines, [name in figures for name in header])
    how = (
        f"Published: {published['protocol']}. Ours: top-1 on the test split of "
        f"{grid.spec['dataset']['name']} in percent, mean ± standard deviation over seeds; gains paired "
        "by seed, with their 95 % t interval. The best test epoch is selected on the test split itself, as published "
        "tables do, and is optimistic; the last epoch selects nothing. A single run, as a study's, falls "
        "outside of an interval of means more often than one time in twenty. Retention: the distilled student's "
        "accuracy in percent of its teacher's."
    )
    models = efficiency(grid, gains(grid))
    parts: list[Part] = [table, Note(how), *_verdicts(frame, varying), *_teachers(grid, published)]
    parts += [*_models(grid, models, published, varying), *_ratios(models, published), *unfinished(grid)]
    return Document(f"{grid.name} beside {published['study']}", parts)


def _verdicts(frame: pl.DataFrame, varying: list[str]) -> list[Part]:
    """For each pair, whether the published gain lies in our interval at the same protocol."""
    lines = []
    for row in frame.iter_rows(named=True):
        if row["method"] is None:
            lines.append(f"{pair(row)}: not among the pairs shown here.")
            continue
        what = with_setting(pair(row), row, varying)
        is_ = row["published_gain_is"] or NO_INTERVAL
        text = {
            INSIDE: "lies inside our interval",
            OUTSIDE: "lies outside of our interval",
            NO_INTERVAL: "cannot be judged: ours has no interval yet",
        }[is_]
        lines.append(f"{what}: the published gain of {row['published_gain_points']:+.2f} {text} (best test).")
    return [Items(lines)] if lines else []


def _teachers(grid: Grid, published: dict[str, Any]) -> list[Part]:
    rows = {row["teacher"]: row for row in grid.cells.filter(pl.col("kind") == "teacher").iter_rows(named=True)}
    figures: list[list[Any]] = []
    for said in published["models"]:
        if said["mode"] is None and said["accuracy"] is not None:
            row = rows.get(said["model"], {})
            ours = [None if row.get(point) is None else 100 * row[point] for point in (BEST_TEST, POINT)]
            figures.append([said["model"], said["accuracy"], *ours])
    header = ["Teacher", "Published", "Ours, best test", "Ours, last epoch"]
    if not figures:
        return []
    accuracies = ("published_percent", f"{BEST_TEST}_percent", f"{POINT}_percent")
    names = {"teacher": pl.String, **dict.fromkeys(accuracies, pl.Float64)}
    frame = pl.DataFrame(figures, schema=names, orient="row")
    lines = [[line[0], *(number(figure) for figure in line[1:])] for line in figures]
    return [Table("teachers", frame, header, lines, [False, True, True, True])]


def _models(grid: Grid, ours: pl.DataFrame, published: dict[str, Any], varying: list[str]) -> list[Part]:
    """What each published model costs and gives for that, and ours below it."""
    lines = []
    for said in published["models"]:
        size_ms = None if None in (said["size_mb"], said["inference_ms"]) else said["size_mb"] * said["inference_ms"]
        trained = {None: "as a teacher", "baseline": "alone", "distilled": "distilled"}[said["mode"]]
        scores = [digits(said["efficiency"]), digits(ratio(said["accuracy"], size_ms))]
        costs = [count(said["parameters"]), digits(said["size_mb"]), digits(said["inference_ms"])]
        lines.append([said["model"], trained, "published", number(said["accuracy"]), *costs, *scores])
        same = ours.filter(pl.col("model") == said["model"], pl.col("mode").eq_missing(pl.lit(said["mode"])))
        for row in same.iter_rows(named=True):
            scores = [digits(row["percent_per_ms"]), digits(row["percent_per_mib_ms"])]
            costs = [count(row["parameters"]), digits(row["size_mib"]), shown_latency(row)]
            how = shown_training(row, varying) if row["mode"] == "distilled" else ""
            lines.append(["", how, "ours", number(row["accuracy_percent"]), *costs, *scores])
    if not lines:
        return []
    names = ["Accuracy", "Parameters", "Size (MiB)", "ms per batch", "Accuracy / ms", "Accuracy / (MiB x ms)"]
    right = [False] * 3 + [True] * len(names)
    table = Table("models", ours, ["Model", "Trained", "Whose", *names], lines, right)
    what = (
        "Ours: the last epoch, mean over seeds. Published: figures and accuracy / ms as printed there; "
        "accuracy / (MiB x ms) is computed here from the printed ones."
    )
    warning = "of different machines and batches do not compare; at most their ratios do."
    notes = [Note(what), Note(warning, lead="Times and scores"), *timing_notes(grid)]
    return [Heading("Models"), table, *notes]


def _ratios(models: pl.DataFrame, published: dict[str, Any]) -> list[Part]:
    """Teacher over student, in parameters, bytes and time: the study's and ours."""
    rows = models.unique(["model", "mode"], keep="first", maintain_order=True).to_dicts()
    costs = {(row["model"], row["mode"] is None): row for row in rows}
    lines, figures = [], []
    for said in published["pairs"]:
        stated = [said[name] for name in ("compression", "compression_size", "speedup")]
        if stated == [None, None, None]:
            continue
        teacher, student = costs.get((said["teacher"], True), {}), costs.get((said["student"], False), {})
        ours = [_over(teacher, student, name) for name in ("parameters", "size_mib")]
        together = [teacher.get(name) == student.get(name) for name in ("latency_device", "latency_batch")]
        ours.append(_over(teacher, student, "latency_ms") if all(together) else None)
        figures.append([said["teacher"], said["student"], *stated, *ours])
        lines.append([said["teacher"], said["student"], "published", *(times(x) for x in stated)])
        lines.append(["", "", "ours", *(times(x) for x in ours)])
    header = ["Teacher", "Student", "Whose", "Fewer parameters", "Smaller", "Faster"]
    if not lines:
        return []
    names = ["teacher", "student", *(f"{whose}_{what}" for whose in ("published", "ours") for what in RATIOS)]
    schema = {name: pl.String if name in names[:2] else pl.Float64 for name in names}
    frame = pl.DataFrame(figures, schema=schema, orient="row")
    what = "Teacher over student, in parameters, size and time:"
    return [Table("ratios", frame, header, lines, [False] * 3 + [True] * 3, title=what)]


def _over(teacher: FrameRow, student: FrameRow, name: str) -> float | None:
    return ratio(teacher.get(name), student.get(name))
