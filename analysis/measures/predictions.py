"""What the images of a split say of a model: accuracy per class, confusion, reliability. All of `outcomes`, a row an
image of a stage, and as frames."""

from __future__ import annotations

import polars as pl

# As `kd.evaluate` measures the calibration error.
BINS = 15

STAGE = ("stage_id", "split")
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


def _ordered(frame: pl.DataFrame, images: pl.DataFrame, *by: str) -> pl.DataFrame:
    """The stages and splits in the order in which they came, and each of them by these columns."""
    order = images.select(STAGE).unique(maintain_order=True)
    return order.join(frame.sort(by), on=STAGE, how="left", maintain_order="left_right")
