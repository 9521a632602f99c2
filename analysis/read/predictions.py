"""What each teacher and cell says of the val and test images, image by image. Its files are read only when they are
asked for."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import safetensors.numpy
from numpy.typing import NDArray
from scipy.special import softmax

from analysis.errors import AnalysisError
from analysis.read.curves import KEYS
from analysis.read.grids import Records
from analysis.read.storage import Reader, said
from grid.contract.figures import SPLITS
from grid.contract.files.layout import stage_folder
from grid.contract.parsing import parse_json
from grid.contract.record import PREDICTIONS, Record, is_of_record, predictions_file

_PLACE = re.compile(r"/(predictions(-[0-9a-f]+)?\.safetensors|(val|test)_labels\.npy|dataset\.json):")
OF_A_RECORD = ("stage_id", "kind", "dataset_id", "predictions_sha256", "files", *(f"{s}_top1_last" for s in SPLITS))

# A row an image, in the order of the data set's labels.
OUTCOMES = pl.Schema(
    {
        "stage_id": pl.String,
        "split": pl.String,
        "image": pl.Int32,
        "label": pl.Int32,
        "predicted": pl.Int32,
        "confidence": pl.Float32,
    }
)


@dataclass(frozen=True)
class _Labels:
    classes: int
    by_split: dict[str, NDArray[np.int64]]


def outcomes(grid: Records) -> pl.DataFrame:
    """One row a done stage, split and image, with the columns of OUTCOMES: the image's number in its split, its class,
    the predicted one (that of the highest logit, the first of equals) and the probability it is given, from 0 to 1.
    Predictions that cannot be read, or are not those of their record and images, are named in grid.problems; what keeps
    none has no rows, as `without_predictions` tells."""
    parts, labels = [pl.DataFrame(schema=OUTCOMES)], dict[str, _Labels | None]()
    kept = _done(grid).filter(pl.col("predictions_sha256").is_not_null())
    for row in kept.select(OF_A_RECORD).iter_rows(named=True):
        record = Record(**row)
        path = f"{stage_folder(row['kind'], row['stage_id'])}/{predictions_file(record)}"
        dataset_id = str(row["dataset_id"])
        if dataset_id not in labels:
            labels[dataset_id] = _read_labels(grid, dataset_id)
        of = labels[dataset_id]
        if of is None:
            continue
        try:
            logits = parse_predictions(grid.reader.read(path), record)
            found = [_outcomes(record, split, logits_NC, of) for split, logits_NC in logits.items()]
        except FileNotFoundError:
            _tell(grid, f"{path}: missing")
        except AnalysisError as error:  # of the storage, which names the path
            _tell(grid, str(error))
        except Exception as error:  # whatever is wrong with one file, the others are shown
            _tell(grid, f"{path}: {said(error)}")
        else:
            parts += found
    return pl.concat(parts)


def predictions(grid: Records) -> pl.DataFrame:
    """As `outcomes`, with the grid's axes: one row a planned teacher or cell of a grid, split and image."""
    cells = grid.cells.filter(pl.col("status") == "done").select(KEYS)
    return cells.join(outcomes(grid), on="stage_id", how="inner", maintain_order="left_right")


def without_predictions(grid: Records) -> pl.DataFrame:
    """The rows of the done teachers and cells that kept none: computed before they were kept, or without them."""
    return _done(grid).filter(pl.col("predictions_sha256").is_null())


def read_logits(grid: Records, stage_id: str) -> dict[str, NDArray[np.float16]]:
    """The logits [image, class] of a done teacher or cell by split, as they are kept. Raises AnalysisError where there
    are none, or not those of its record."""
    rows = _done(grid).filter(pl.col("stage_id") == stage_id).select(OF_A_RECORD).to_dicts()
    if not rows:
        raise AnalysisError(f"{stage_id!r} is no teacher or cell of {grid.called} that is done")
    record = Record(**rows[0])
    name = predictions_file(record)
    if name is None:
        raise AnalysisError(f"{stage_id} keeps no predictions: it was computed before they were kept, or without them")
    path = f"{stage_folder(str(record.kind), stage_id)}/{name}"
    try:
        return parse_predictions(grid.reader.read(path), record)
    except FileNotFoundError:
        raise AnalysisError(f"{path}: missing") from None
    except ValueError as error:
        raise AnalysisError(f"{path}: {said(error)}") from None


def is_of_predictions(problem: str) -> bool:
    """Whether it is predictions that cannot be read, or the labels that they are compared with."""
    return _PLACE.search(problem) is not None


def class_names(grid: Records) -> dict[str, list[str]]:
    """What the classes of each data set are called, in the order of their numbers, by the data set's id; absent where
    they have numbers alone, or where an earlier version prepared the images."""
    found: dict[str, list[str]] = {}
    rows = grid.stages.filter(pl.col("kind") == "dataset", pl.col("class_names").is_not_null())
    for stage_id, text in rows.select("stage_id", "class_names").iter_rows():
        try:
            names = parse_json(text.encode())
        except ValueError:
            continue
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            found[stage_id] = names
    return found


def parse_predictions(data: bytes, record: Record) -> dict[str, NDArray[np.float16]]:
    """The logits [image, class] of a record's predictions by split. Raises ValueError with the reason that they are
    none, or another's, on one line."""
    if not is_of_record(record, PREDICTIONS, data):
        raise ValueError("not the predictions of its record: damaged, or of another training")
    try:
        found: dict[str, Any] = safetensors.numpy.load(data)
    except Exception as error:  # numpy and safetensors have errors of their own for what they cannot hold
        raise ValueError(f"not predictions: {said(error)}") from None
    if not found or not set(found) <= set(SPLITS):
        raise ValueError(f"not predictions: they are of {', '.join(sorted(found)) or 'nothing'}")
    for split, logits_NC in found.items():
        if logits_NC.dtype != np.float16 or logits_NC.ndim != 2 or 0 in logits_NC.shape:
            raise ValueError(f"not predictions: {split} is {logits_NC.dtype} of shape {logits_NC.shape}")
        if not np.isfinite(logits_NC).all():
            raise ValueError(f"not predictions: {split} has logits that are not finite")
    return {split: found[split] for split in SPLITS if split in found}


def _done(grid: Records) -> pl.DataFrame:
    return grid.cells.filter(pl.col("status") == "done").unique("stage_id", keep="first", maintain_order=True)


def _outcomes(record: Record, split: str, logits_NC: NDArray[np.float16], labels: _Labels) -> pl.DataFrame:
    """Raises ValueError where the logits are not of these images."""
    labels_N = labels.by_split[split]
    if logits_NC.shape != (len(labels_N), labels.classes):
        images, classes = logits_NC.shape
        raise ValueError(
            f"not predictions of its data set: {split} has {images} images and {classes} classes, the data set "
            f"{len(labels_N)} and {labels.classes}"
        )
    predicted_N = logits_NC.argmax(axis=1)
    # Logits are rounded so that each image keeps its class: this is what was evaluated, to the last bit.
    share, top1 = int((predicted_N == labels_N).sum()) / len(labels_N), record.metric(split, "top1")
    if top1 is not None and share != top1:
        raise ValueError(f"not predictions of its images: {split} has top-1 {share:.4f}, its record says {top1:.4f}")
    columns = {
        "image": np.arange(len(labels_N), dtype=np.int32),
        "label": labels_N.astype(np.int32),
        "predicted": predicted_N.astype(np.int32),
        "confidence": softmax(logits_NC.astype(np.float32), axis=1).max(axis=1),
    }
    of = pl.DataFrame(columns).with_columns(stage_id=pl.lit(record.stage_id), split=pl.lit(split))
    return of.select(pl.col(name).cast(kind) for name, kind in OUTCOMES.items())


def _read_labels(grid: Records, dataset_id: str) -> _Labels | None:
    """The labels of a prepared data set; None where they cannot be read, which is named in grid.problems."""
    folder, file = stage_folder("dataset", dataset_id), "dataset.json"
    try:
        facts = parse_json(grid.reader.read(f"{folder}/{file}"))
        classes = facts.get("classes") if isinstance(facts, dict) else None
        if type(classes) is not int or classes < 1:
            raise ValueError("it does not say how many classes there are")
        by_split = {}
        for split in SPLITS:
            file = f"{split}_labels.npy"
            by_split[split] = _array(grid.reader, f"{folder}/{file}", classes)
        return _Labels(classes, by_split)
    except FileNotFoundError:
        _tell(grid, f"{folder}/{file}: missing, and nobody knows without it which predictions are right")
    except AnalysisError as error:  # of the storage, which names the path
        _tell(grid, str(error))
    except Exception as error:  # whatever is wrong with the labels, all else is shown
        _tell(grid, f"{folder}/{file}: {said(error)}")
    return None


def _array(reader: Reader, path: str, classes: int) -> NDArray[np.int64]:
    data = reader.read(path)
    try:
        labels_N: Any = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, SyntaxError):  # what numpy says names a way that would run what lies there
        raise ValueError("no labels: not an array of numbers") from None
    if not isinstance(labels_N, np.ndarray):
        raise ValueError("no labels: not one array")
    if labels_N.dtype != np.int64 or labels_N.ndim != 1:
        raise ValueError(f"no labels: {labels_N.dtype} of shape {labels_N.shape}")
    if len(labels_N) and not 0 <= labels_N.min() <= labels_N.max() < classes:
        raise ValueError(f"no labels: they are outside of 0 to {classes - 1}")
    return labels_N


def _tell(grid: Records, problem: str) -> None:
    if problem not in grid.problems:
        grid.problems.append(problem)
