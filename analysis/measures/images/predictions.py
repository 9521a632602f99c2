"""What the images of a split say of a model: accuracy per class, confusion, reliability. All of `outcomes`, a row an
image of a stage, and as frames."""

from __future__ import annotations

import polars as pl

from analysis.read.grids import Records
from analysis.read.schema import AXES

# As `kd.evaluate` measures the calibration error.
BINS = 15

STAGE = ("stage_id", "split")
WAY = ("grid", "kind", "teacher", "student", "mode", "start", *AXES)
"""What a model is and how it was trained, but for the seed."""
RIGHT = pl.col("predicted") == pl.col("label")


def by_class(images: pl.DataFrame) -> pl.DataFrame:
    """One row a stage, split and class that has an image there: `images` of it, how many of them are `right`, and their
    share, `recall_percent`. images: of `outcomes`."""
    counts = images.group_by(*STAGE, "label").agg(images=pl.len().cast(pl.Int64), right=RIGHT.sum().cast(pl.Int64))
    shares = counts.with_columns(recall_percent=100 * pl.col("right") / pl.col("images"))
    return _ordered(shares, images, "label")


def balanced(images: pl.DataFrame) -> pl.DataFrame:
    """One row a stage and split. top1_percent: of all images. balanced_percent: balanced accuracy, the mean over
    classes of the share of their images that are right, so that a rare class counts as a frequent one does
    (K. Brodersen et al., "The Balanced Accuracy and Its Posterior Distribution", ICPR 2010; for several classes as
    scikit-learn has it, over those that the split has). classes: those; never_right: the numbers of those of which no
    image is right, ascending."""
    classes = by_class(images)
    never = pl.col("label").filter(pl.col("right") == 0)
    return classes.group_by(STAGE, maintain_order=True).agg(
        images=pl.col("images").sum(),
        classes=pl.len().cast(pl.Int64),
        top1_percent=100 * pl.col("right").sum() / pl.col("images").sum(),
        balanced_percent=pl.col("recall_percent").mean(),
        never_right=never,
    )


def confusion(images: pl.DataFrame) -> pl.DataFrame:
    """The confusion matrix as a long frame: one row a stage, split, class and predicted class that come together, with
    how many `images` do and their `share_percent` of the class's images."""
    counts = images.group_by(*STAGE, "label", "predicted").agg(images=pl.len().cast(pl.Int64))
    whole = pl.col("images").sum().over(*STAGE, "label")
    shares = counts.with_columns(share_percent=100 * pl.col("images") / whole)
    return _ordered(shares, images, "label", "predicted")


def reliability(images: pl.DataFrame, *, bins: int = BINS) -> pl.DataFrame:
    """What a reliability diagram draws: one row a stage, split and bin of confidence that has an image, the bins being
    (low, high] of equal width, with its `images`, their mean confidence_percent and their accuracy_percent, and
    gap_points, accuracy minus confidence. The mean of |gap_points| weighted by images is the expected calibration error
    (C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3)."""
    number = (pl.col("confidence") * bins).ceil().clip(1, bins).cast(pl.Int64)
    found = images.group_by(*STAGE, number.alias("bin")).agg(
        images=pl.len().cast(pl.Int64),
        confidence_percent=100 * pl.col("confidence").cast(pl.Float64).mean(),
        accuracy_percent=100 * RIGHT.mean(),
    )
    placed = found.with_columns(
        low=(pl.col("bin") - 1) / bins,
        high=pl.col("bin") / bins,
        gap_points=pl.col("accuracy_percent") - pl.col("confidence_percent"),
    )
    columns = ("bin", "low", "high", "images", "confidence_percent", "accuracy_percent", "gap_points")
    return _ordered(placed, images, "bin").select(*STAGE, *columns)


def recalls(records: Records, images: pl.DataFrame, *, split: str = "test") -> pl.DataFrame:
    """One row a teacher, student alone and student by teacher and setting (WAY), and class that has an image: the mean
    of its recall_percent over seeds, `right`, of so many `images` in all seeds together, and `seeds`. images: of
    `outcomes`."""
    cells = records.cells.select("stage_id", *WAY).unique(maintain_order=True)
    classes = by_class(images.filter(pl.col("split") == split))
    joined = cells.join(classes, on="stage_id", how="inner", maintain_order="left_right")
    return joined.group_by(*WAY, "label", maintain_order=True).agg(
        seeds=pl.len().cast(pl.Int64),
        images=pl.col("images").sum(),
        right=pl.col("right").sum(),
        recall_percent=pl.col("recall_percent").mean(),
    )


def classes(records: Records, images: pl.DataFrame, *, split: str = "test") -> pl.DataFrame:
    """One row of WAY, with the means over seeds of top1_percent and balanced_percent (see `balanced`); never_right: the
    numbers of those of its `classes` of which no image is right with any seed. images: of `outcomes`; in the frame, of
    the split."""
    return (
        recalls(records, images, split=split)
        .group_by(WAY, maintain_order=True)
        .agg(
            split=pl.lit(split),
            seeds=pl.col("seeds").first(),
            images=pl.col("images").sum() // pl.col("seeds").first(),
            classes=pl.len().cast(pl.Int64),
            top1_percent=100 * pl.col("right").sum() / pl.col("images").sum(),
            balanced_percent=pl.col("recall_percent").mean(),
            never_right=pl.col("label").filter(pl.col("right") == 0),
        )
    )


def class_changes(records: Records, images: pl.DataFrame, *, split: str = "test") -> pl.DataFrame:
    """One row a grid and class that has an image: its `images`, the mean recall of the grid's teachers, and over all
    distilled cells whose student alone has predictions of the same seed the mean recall of these students alone and
    distilled, in percent, and change_points between them. images: of `outcomes`."""
    found = by_class(images.filter(pl.col("split") == split)).select("stage_id", "label", "images", "recall_percent")
    cells = records.cells.select("grid", "stage_id", "kind", "mode", "student", "seed")
    joined = cells.join(found, on="stage_id", how="inner", maintain_order="left_right")
    key, what = ["grid", "label"], pl.col("recall_percent")
    alone = joined.filter(pl.col("mode") == "baseline")
    pairs = joined.filter(pl.col("mode") == "distilled").join(
        alone.select(*key, "student", "seed", alone_percent="recall_percent"),
        on=[*key, "student", "seed"],
        maintain_order="left_right",
    )
    frame = joined.group_by(key, maintain_order=True).agg(pl.col("images").first()).sort("label", maintain_order=True)
    parts = (
        joined.filter(pl.col("kind") == "teacher").group_by(key).agg(teachers_percent=what.mean()),
        alone.group_by(key).agg(of_all_alone=what.mean()),
        pairs.group_by(key).agg(alone_percent=pl.col("alone_percent").mean(), distilled_percent=what.mean()),
    )
    for part in parts:
        frame = frame.join(part, on=key, how="left", maintain_order="left")
    return frame.with_columns(
        alone_percent=pl.coalesce("alone_percent", "of_all_alone"),
        change_points=pl.col("distilled_percent") - pl.col("alone_percent"),
    ).drop("of_all_alone")


def _ordered(frame: pl.DataFrame, images: pl.DataFrame, *by: str) -> pl.DataFrame:
    """The stages and splits in the order in which they came, and each of them by these columns."""
    order = images.select(STAGE).unique(maintain_order=True)
    return order.join(frame.sort(by), on=STAGE, how="left", maintain_order="left_right")
