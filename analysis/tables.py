"""The tables, as frames and as markdown that reads well raw."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from analysis.load import Grid
from analysis.stats import effect, paired_gains, summarize

AXES = ("method", "temperature", "alpha")
POINT = "test_top1_last"
BEST_TEST = "best_test_top1"

NEGATIVE, NEGATIVE_CLEAR, GAIN_CLEAR = "▽", "▼", "▲"

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
    "compression": pl.Float64,
}


def gains(grid: Grid, *, point: str = POINT) -> pl.DataFrame:
    """One row a teacher, student, method, temperature and alpha, in the grid's order. Accuracies in percent.

    point: the record's column that is compared; BEST_TEST is selected on the test split, as published tables do.
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
        baseline = baselines.get(row["student"], {})
        teacher = teachers[row["teacher"]]
        paired = paired_gains(distilled, baseline)
        gain = summarize(list(paired.values())) if paired else None
        parameters = (teacher["parameters"], students.get(row["student"]))
        rows.append(
            {
                "experiment": titles[row["teacher"], row["student"]],
                "teacher": row["teacher"],
                "teacher_parameters": parameters[0],
                "teacher_top1": None if teacher[point] is None else 100 * teacher[point],
                "student": row["student"],
                "student_parameters": parameters[1],
                **{axis: row[axis] for axis in AXES},
                **_columns("baseline", baseline),
                **_columns("distilled", distilled),
                "gain_mean": gain.mean if gain else None,
                "gain_low": gain.low if gain else None,
                "gain_high": gain.high if gain else None,
                "gain_n": gain.n if gain else 0,
                "effect": effect(gain) if gain else None,
                "compression": parameters[0] / parameters[1] if parameters[0] and parameters[1] else None,
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


def markdown_table(grid: Grid) -> str:
    """The gain and compression table with what a reader must know to trust it."""
    frame = gains(grid)
    if frame.is_empty():
        return _baseline_markdown(grid)
    varying = [axis for axis in AXES if frame[axis].n_unique() > 1]
    header = ["Experiment", "Teacher (params)", "Student (params)", *(axis.capitalize() for axis in varying)]
    header += ["Baseline", "Distilled", "Gain", "Compression"]
    lines = []
    for row in frame.iter_rows(named=True):
        cells = [escape(row["experiment"]), _model(row, "teacher"), _model(row, "student")]
        cells += [f"{row[axis]:g}" if isinstance(row[axis], float) else str(row[axis]) for axis in varying]
        cells += [shown_accuracy(row, "baseline"), shown_accuracy(row, "distilled"), shown_gain(row)]
        cells.append("—" if row["compression"] is None else f"{row['compression']:.1f}x")
        lines.append(cells)
    numeric = ["Baseline", "Distilled", "Gain", "Compression", *(axis.capitalize() for axis in varying)]
    table = align(header, lines, right=[name in numeric for name in header])
    return "\n\n".join([f"### {escape(grid.name)}", table, *_notes(grid, frame)]) + "\n"


def _baseline_markdown(grid: Grid) -> str:
    frame = baselines(grid)
    lines = [[_model(row, "student"), shown_accuracy(row, "baseline")] for row in frame.iter_rows(named=True)]
    table = align(["Student (params)", "Baseline"], lines, right=[False, True])
    notes = [_protocol(grid), *unfinished(grid)]
    return "\n\n".join([f"### {escape(grid.name)}", table, *notes]) + "\n"


def align(header: Sequence[str], lines: Sequence[Sequence[str]], *, right: Sequence[bool]) -> str:
    """A markdown table padded so that it reads well raw. Cells are markdown already: names in them are escaped."""
    rows = [header, *lines]
    widths = [max(3, *(len(line[i]) for line in rows)) for i in range(len(header))]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    padded = [
        [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True)] for line in rows
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


def escape(text: str) -> str:
    """Text that markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|&#~])", r"\\\1", " ".join(text.split()))


def human(count: float) -> str:
    """25474 -> '25.5K', 85875556 -> '85.9M'."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= 0.99995 * limit:  # what would round to 1000.0 of the unit below
            return f"{count / limit:.1f}{unit}"
    return f"{count:g}"


def _model(row: dict[str, object], role: str) -> str:
    parameters = row[f"{role}_parameters"]
    size = f" ({human(parameters)})" if isinstance(parameters, int) else ""
    return f"{escape(str(row[role]))}{size}"


def shown_accuracy(row: dict[str, object], prefix: str) -> str:
    mean, std, n = row[f"{prefix}_mean"], row[f"{prefix}_std"], row[f"{prefix}_n"]
    if mean is None:
        return "—"
    spread = f" ± {std:.2f}" if std is not None else ""
    return f"{mean:.2f}{spread} (n={n})"


def shown_gain(row: dict[str, object]) -> str:
    mean, low, high = row["gain_mean"], row["gain_low"], row["gain_high"]
    if not isinstance(mean, float):
        return "—"
    mean = round(mean, 9) + 0.0  # a sum that cancels is 0, not -1e-15
    interval = f" [{low:+.2f}, {high:+.2f}]" if low is not None else f" (n={row['gain_n']})"
    mark = {"gain": GAIN_CLEAR, "negative transfer": NEGATIVE_CLEAR}.get(str(row["effect"]))
    mark = mark or (NEGATIVE if mean < 0 else "")
    return f"{mean:+.2f}{interval} {mark}".rstrip()


def _notes(grid: Grid, frame: pl.DataFrame) -> list[str]:
    counts = sorted(set(frame["gain_n"]))
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    note = f"{_protocol(grid)} Gain: distilled minus baseline, paired by seed ({n}), in points"
    most = max(counts, default=0)
    note += {0: "; no seed has both yet.", 1: "; one seed gives no interval."}.get(most, ", with its 95 % t interval.")
    legend = []
    effects = set(frame["effect"])
    if "gain" in effects:
        legend.append(f"{GAIN_CLEAR} gain: the interval is above 0")
    if "negative transfer" in effects:
        legend.append(f"{NEGATIVE_CLEAR} negative transfer: the interval is below 0")
    if frame.filter(pl.col("gain_mean").round(9) < 0, pl.col("effect") != "negative transfer").height:
        legend.append(f"{NEGATIVE} below the baseline, but the interval includes 0 or there is none")
    legend_line = [". ".join(["; ".join(legend)]) + "."] if legend else []
    return [note, *legend_line, *_teachers(grid), *unfinished(grid)]


def _protocol(grid: Grid) -> str:
    dataset = escape(str(grid.spec["dataset"]["name"]))
    return f"Top-1 on the test split of {dataset} in percent, last epoch, mean ± standard deviation over seeds."


def _teachers(grid: Grid) -> list[str]:
    done = grid.cells.filter(pl.col("kind") == "teacher", pl.col("status") == "done", pl.col(POINT).is_not_null())
    shown = [f"{escape(name)} {100 * top1:.2f}" for name, top1 in done.select("teacher", POINT).iter_rows()]
    return [f"Teachers: {', '.join(shown)}."] if shown else []


def unfinished(grid: Grid) -> list[str]:
    """What the table does not stand on, and what it mixes; nothing where every cell is done, and all alike."""
    total = grid.cells.height
    done = grid.cells.filter(pl.col("status") == "done").height
    notes = []
    if done < total:
        failed = grid.cells.filter(pl.col("status") == "failed").height
        notes.append(
            f"**Unfinished**: this table stands on {done} of {total} teachers and cells ({failed} failed, "
            f"{total - done - failed} missing). Launch the grid again to finish it."
        )
    precisions = sorted(grid.cells.filter(pl.col("kind") == "cell")["precision"].drop_nulls().unique())
    if len(precisions) > 1:
        notes.append(
            f"**Mixed precision**: its cells ran in {' and '.join(precisions)}; set recipe.precision and launch again "
            "to compare like with like."
        )
    return notes + [f"**Unreadable**: {escape(problem)}" for problem in grid.problems]
