"""The training curves of a grid as one frame. They are files of their own, read only when they are asked for."""

from __future__ import annotations

import io
import re

import polars as pl

from analysis.errors import AnalysisError
from analysis.read.grids import Records
from analysis.read.schema import AXES
from analysis.read.storage import said
from grid.contract.figures import SPLITS
from grid.contract.files.layout import stage_folder
from grid.contract.record import CURVE as CURVE_FILE
from grid.contract.record import METRICS, Record, curve_file, is_of_record

_TERM = re.compile(r"train_loss_\w+", re.ASCII)
_PLACE = re.compile(r"/curve(-[0-9a-f]+)?\.parquet:")
OF_A_CURVE = ("stage_id", "kind", "curve_sha256", "files")  # of a record
KEYS = ("grid", "stage_id", "kind", "teacher", "student", "mode", "seed", *AXES)

CURVE = pl.Schema(
    {
        "epoch": pl.Int64,
        "learning_rate": pl.Float64,
        "train_loss": pl.Float64,
        "train_top1": pl.Float64,
        "seconds_train": pl.Float64,
        "seconds_evaluate": pl.Float64,
        **{f"{split}_{metric}": pl.Float64 for split in SPLITS for metric in METRICS},
    }
)


def curves(grid: Records) -> pl.DataFrame:
    """One row a done teacher or cell and epoch: the grid's axes and the columns of CURVE, fractions as in the records,
    null where an epoch was not evaluated; and a column `train_loss_<name>` for each term of a loss, null where a cell
    has no such term. A curve that is missing or cannot be read is named in grid.problems."""
    cells = grid.cells.filter(pl.col("status") == "done")
    done = cells.select(KEYS)
    parts = [pl.DataFrame(schema={"stage_id": pl.String, **CURVE})]
    for row in cells.unique("stage_id", maintain_order=True).select(OF_A_CURVE).iter_rows(named=True):
        stage_id, record = row["stage_id"], Record(**row)
        path = f"{stage_folder(row['kind'], stage_id)}/{curve_file(record)}"
        try:
            curve = parse_curve(grid.reader.read(path), record)
        except FileNotFoundError:
            problem = f"{path}: missing"
        except AnalysisError as error:  # of the storage, which names the path
            problem = str(error)
        except Exception as error:  # whatever is wrong with one curve, the others are shown
            problem = f"{path}: {said(error)}"
        else:
            parts.append(curve.select(pl.lit(stage_id).alias("stage_id"), pl.all()))
            continue
        if problem not in grid.problems:
            grid.problems.append(problem)
    return done.join(pl.concat(parts, how="diagonal"), on="stage_id", how="inner", maintain_order="left_right")


def is_of_a_curve(problem: str) -> bool:
    """Whether it is a curve that cannot be read."""
    return _PLACE.search(problem) is not None


def parse_curve(data: bytes, record: Record) -> pl.DataFrame:
    """The curve of a record, with the columns of CURVE, null where it has none, and those of its loss's terms. Raises
    ValueError with the reason it is none, or another's, on one line."""
    if not is_of_record(record, CURVE_FILE, data):
        raise ValueError("not the curve of its record: damaged, or of another training")
    try:
        read = pl.read_parquet(io.BytesIO(data))
        if "epoch" not in read.columns or read["epoch"].has_nulls():
            raise ValueError("not a curve: it has no epochs")
        columns = [pl.col(name) if name in read.columns else pl.lit(None).alias(name) for name in CURVE]
        terms = pl.Schema({name: pl.Float64 for name in read.columns if _TERM.fullmatch(name)})
        return read.select(*columns, *terms).cast(CURVE | terms)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:  # some damaged bytes make it panic
        raise ValueError(f"not a curve: {' '.join(str(error).split())}") from None
