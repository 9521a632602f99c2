"""What is said of classes and single images: which classes a student never gets right, and which images it loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from analysis.document import Document, Heading, Note, Part, Table
from analysis.measures.gains import crossed
from analysis.measures.images.disagreement import disagreement
from analysis.measures.images.image_noise import with_image_noise
from analysis.measures.images.predictions import WAY, class_changes, classes, recalls
from analysis.measures.pairs import KEYS
from analysis.read.grids import Grid
from analysis.read.predictions import class_names, outcomes, without_predictions
from analysis.shown import UNKNOWN, FrameRow, number, pair, percent, with_setting
from analysis.tables.models import shown_training
from analysis.tables.standing import unfinished

WEAKEST, NAMED = 3, 5  # classes that a cell of the table names
LISTED = 20  # classes: of more, those that changed most are shown
LEVEL = 0.05


def classes_document(grid: Grid) -> Document:
    """What `kd-analysis classes` shows."""
    images = outcomes(grid)
    parts = classes_parts(grid, images)
    return Document(f"{grid.title}: classes", [*parts[:1], *unfinished(grid), *parts[1:]])


def classes_parts(grid: Grid, images: pl.DataFrame) -> list[Part]:
    """The tables with what a reader must know to trust them; the first is of ways of training, and empty where nothing
    keeps predictions. images: of `outcomes`."""
    noise = with_image_noise(grid, images)
    intervals = noise.select(
        *KEYS, "mode", top1_low_percent="accuracy_low_percent", top1_high_percent="accuracy_high_percent"
    )
    frame = classes(grid, images).join(
        intervals, on=[*KEYS, "mode"], how="left", nulls_equal=True, maintain_order="left"
    )
    names = _Names(grid)
    parts: list[Part] = [_classes_table(grid, frame, images, names), *_absent(grid)]
    if frame.is_empty():
        return parts
    data = grid.spec["dataset"]["name"]
    sizes = _sizes(images)
    parts.append(
        Note(
            f"On the test split of {data} ({sizes}) at the last epoch, in percent, means over seeds. Top-1 has a 95 % "
            "interval for other seeds and other test images; of one seed, for other images alone. Balanced: the mean "
            "of the classes' accuracies, in which a rare class counts as much as a frequent one. Weakest: of the "
            "classes that are right at least once. Never right: on no test image and with no seed."
        )
    )
    return [*parts, *_changes(grid, images, names), *_images(grid, images, noise)]


class _Names:
    """Of a grid's classes."""

    def __init__(self, grid: Grid) -> None:
        known = [*class_names(grid).values()]
        self.names: Sequence[str] = known[0] if len(known) == 1 else ()

    def __getitem__(self, label: int) -> str:
        return self.names[label] if label < len(self.names) else str(label)

    def listed(self, labels: Sequence[int]) -> str:
        """The first few of them."""
        more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
        return ", ".join(self[label] for label in labels[:NAMED]) + more


def _classes_table(grid: Grid, frame: pl.DataFrame, images: pl.DataFrame, names: _Names) -> Table:
    axes = crossed(frame)
    by_class = dict(iter(recalls(grid, images).group_by(WAY, maintain_order=True)))
    lines, never, weakest = list[list[str]](), list[str](), list[str]()
    for row in frame.iter_rows(named=True):
        never.append(names.listed(row["never_right"]))
        weakest.append(_weakest(by_class[tuple(row[name] for name in WAY)], names))
        count = len(row["never_right"])
        shown = f"{count} of {row['classes']}: {never[-1]}" if count else "none"
        model = row["student"] if row["kind"] == "cell" else row["teacher"]
        line = [model, shown_training(row, axes), _top1(row), number(row["balanced_percent"])]
        lines.append([*line, weakest[-1] or UNKNOWN, shown])
    data = frame.with_columns(
        never_right=pl.col("never_right").list.len().cast(pl.Int64),
        never_right_classes=pl.Series(never, dtype=pl.String),
        weakest_classes=pl.Series(weakest, dtype=pl.String),
    )
    header = ["Model", "Trained", "Top-1", "Balanced", "Weakest classes", "Never right"]
    return Table("classes", data, header, lines, [False, False, True, True, False, False])


def _top1(row: FrameRow) -> str:
    between = f" [{row['top1_low_percent']:.2f}, {row['top1_high_percent']:.2f}]" if row["top1_low_percent"] else ""
    return f"{row['top1_percent']:.2f}{between}" + (f" (n={row['seeds']})" if row["kind"] == "cell" else "")


def _weakest(rows: pl.DataFrame, names: _Names) -> str:
    """'eel 12.0 %, cat 40.0 %'."""
    some = rows.filter(pl.col("right") > 0, pl.col("recall_percent") < 100).sort("recall_percent", maintain_order=True)
    shown = some.head(WEAKEST).select("label", "recall_percent").iter_rows()
    return ", ".join(f"{names[label]} {recall:.1f} %" for label, recall in shown)


def _sizes(images: pl.DataFrame) -> str:
    """'1,000 images, 89 to 111 a class'."""
    one = images.filter(pl.col("split") == "test")
    counts = one.filter(pl.col("stage_id") == one["stage_id"][0])["label"].value_counts()["count"].to_list()
    least, most = min(counts), max(counts)
    each = f"{least:,} a class" if least == most else f"{least:,} to {most:,} a class"
    return f"{sum(counts):,} images, {each}"


def _absent(grid: Grid) -> list[Part]:
    """What keeps no predictions; nothing where all that is done does."""
    without, done = (
        without_predictions(grid).height,
        grid.cells.filter(pl.col("status") == "done")["stage_id"].n_unique(),
    )
    if not without:
        return []
    are = "keeps none: it was" if without == 1 else "keep none: they were"
    text = (
        f"{without} of the {done} teachers and cells that are done {are} computed before predictions were kept, or "
        "with resources.keep_predictions: false. Nothing of this can be said of them but by computing them again."
    )
    return [Note(text, lead="Without predictions")]


def _changes(grid: Grid, images: pl.DataFrame, names: _Names) -> list[Part]:
    """Classes by what distilling does to them; those that change most where there are many."""
    frame = class_changes(grid, images)
    has_change = frame["change_points"].count() > 0
    shown = frame
    if frame.height > LISTED:
        by = pl.col("change_points").abs() if has_change else -pl.coalesce("alone_percent", "teachers_percent")
        shown = frame.sort(by, descending=True, nulls_last=True, maintain_order=True).head(LISTED).sort("label")
    columns = {"Teachers": "teachers_percent", "Alone": "alone_percent", "Distilled": "distilled_percent"}
    there = {header: name for header, name in columns.items() if frame[name].count()}
    lines = [
        [
            names[row["label"]],
            f"{row['images']:,}",
            *(number(row[name], 1) for name in there.values()),
            *([_signed(row["change_points"])] if has_change else []),
        ]
        for row in shown.iter_rows(named=True)
    ]
    header = ["Class", "Test images", *there, *(["Change"] if has_change else [])]
    data = frame.with_columns(class_name=pl.Series([names[label] for label in frame["label"]], dtype=pl.String))
    right = [name != "Class" for name in header]
    what = "Accuracy by class in percent, means over models and seeds."
    if has_change:
        what += " Change: distilled minus alone in points, of the same students and seeds; a class of few test images "
        what += "changes by chance."
    if frame.height > LISTED:
        what += f" Of {frame.height} classes, the {LISTED} that {'change most' if has_change else 'are weakest'}."
    return [Heading("Accuracy by class"), Table("by-class", data, header, lines, right), Note(what)]


def _signed(points: float | None) -> str:
    return UNKNOWN if points is None else f"{round(points, 1) + 0.0:+.1f}"


def _images(grid: Grid, images: pl.DataFrame, noise: pl.DataFrame) -> list[Part]:
    """A row a pair and setting: which images are won and lost; nothing where nothing stands beside its baseline."""
    single = disagreement(grid, images)
    if single.is_empty():
        return []
    by_key = {tuple(row[name] for name in KEYS): row for row in noise.iter_rows(named=True)}
    axes, rows, lines = crossed(single), list[dict[str, Any]](), list[list[str]]()
    for key, of in single.group_by(KEYS, maintain_order=True):
        row = _row(of, by_key[key])
        rows.append(row)
        lines.append(
            [
                with_setting(pair(row), row, axes),
                f"{row['gain_mean_points']:+.2f} [{row['gain_low_points']:+.2f}, {row['gain_high_points']:+.2f}]",
                number(row["gain_seeds_error_points"]),
                number(row["gain_images_error_points"]),
                f"{row['only_distilled']:.1f} / {row['only_baseline']:.1f}",
                f"{row['mcnemar_significant']} of {row['seeds']}",
                percent(row["error_overlap_percent"]),
                percent(row["teacher_agreement_percent"]),
                percent(row["teacher_wrong_agreement_percent"]),
            ]
        )
    header = [
        "Pair",
        "Gain",
        "± seeds",
        "± images",
        "Won / lost",
        "McNemar",
        "Both wrong",
        "As teacher",
        "Its mistakes",
    ]
    data = pl.DataFrame(rows, schema={**{name: single.schema[name] for name in KEYS}, **IMAGES})
    table = Table("images", data, header, lines, [name != "Pair" for name in header])
    what = (
        "Gain: in points, with a 95 % interval for other seeds and other test images; ± seeds and ± images are the "
        "standard errors from each. Which gains are significant is said by the table of gains, not here. Won / lost: "
        "test images that the student gets right distilled and not alone, and the reverse, mean over seeds. McNemar: "
        f"with how many seeds the two differ in that (exact test, p below {LEVEL} after Holm's correction for "
        f"{single.height} tests); it compares two trained models, and says nothing of other seeds. Both wrong: of the "
        "images that at least one of the two gets wrong. As teacher: the share of images that the student puts into "
        "the teacher's class. Its mistakes: the same, of the images that the teacher gets wrong."
    )
    return [Heading("Images won and lost"), table, Note(what)]


IMAGES: dict[str, type[pl.DataType]] = {
    "split": pl.String,
    "seeds": pl.Int64,
    "images": pl.Int64,
    **{f"gain_{name}_points": pl.Float64 for name in ("mean", "low", "high", "seeds_error", "images_error")},
    "only_distilled": pl.Float64,
    "only_baseline": pl.Float64,
    "mcnemar_significant": pl.Int64,
    "error_overlap_percent": pl.Float64,
    "teacher_agreement_percent": pl.Float64,
    "teacher_wrong_agreement_percent": pl.Float64,
}


def _row(of: pl.DataFrame, noise: Mapping[str, Any]) -> dict[str, Any]:
    """Of all seeds of a pair and setting, with the columns of KEYS and IMAGES."""
    first = of.row(0, named=True)
    means = ("only_distilled", "only_baseline", *(name for name in IMAGES if name.endswith("_percent")))
    return {
        **{name: first[name] for name in (*KEYS, "split", "images")},
        "seeds": of.height,
        **{name: noise[name] for name in IMAGES if name.startswith("gain_")},
        **{name: of[name].mean() for name in means},
        "mcnemar_significant": (of["mcnemar_p_holm"] < LEVEL).sum(),
    }
