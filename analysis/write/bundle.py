"""Write a bundle: what the analysis reads of one grid, as one zip file. The same storage gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from analysis.errors import AnalysisError
from analysis.read.bundle import BUNDLE_VERSION, ENDING, MANIFEST, file_limit, is_inside
from analysis.read.grids import Grid
from analysis.read.plans import parse_plan
from analysis.read.storage import Reader, said
from grid.contract.files.layout import FAILURE, RECORD, plan_file, stage_folder
from grid.contract.files.local_files import too_large
from grid.contract.files.publishing import publishing
from grid.contract.record import (
    CURVE,
    NAME_DIGITS,
    Record,
    curve_file,
    files_of,
    is_of_record,
    parse_record,
    weights_file,
)

STAGES_AT_ONCE = 250  # whose files are held in memory
FACTS = ("dataset.json", "val_labels.npy", "test_labels.npy")  # of a data set
_NAME = re.compile(r"\w[\w.+-]{0,200}", re.ASCII)
_HASHED = re.compile(rf"-([0-9a-f]{{{NAME_DIGITS}}})\.\w+\Z", re.ASCII)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file: a zip knows no earlier time


@dataclass
class Written:
    """What is in a bundle."""

    stages: int = 0
    """With a record or a failure."""
    files: int = 0
    size: int = 0
    """In bytes."""
    sha256: str = ""
    problems: list[str] = field(default_factory=list)
    """What should be in it and is not, a line each."""


def write_bundle(grid: Grid, file: Path, *, replace: bool = False) -> Written:
    """Write the plan of a grid to `file`, with the record or failure of each stage, and of the files that a record
    names the curve, predictions, and a data set's facts and labels: no weights, logits or images.

    Files that are not those of their record are left out and named. The file is there whole or not at all. Raises
    AnalysisError where it is there already and is not to be replaced, and where it cannot be written.
    """
    if file.suffix.lower() != ENDING:
        raise AnalysisError(f"{file}: end it in {ENDING}, by which a bundle is known")
    target, written = file.expanduser(), Written()
    try:
        _check_free(target, replace=replace)
        with publishing(target) as part:
            _write(grid, part, written)
            with part.open("rb") as whole:
                written.sha256 = hashlib.file_digest(whole, "sha256").hexdigest()
            written.size = part.stat().st_size
            _check_free(target, replace=replace)
    except OSError as error:
        raise AnalysisError(f"{file}: {error.strerror or error}") from None
    return written


def _check_free(target: Path, *, replace: bool) -> None:
    if target.is_dir():
        raise AnalysisError(f"{target}: a folder, not a file to write")
    if not replace and (target.exists() or target.is_symlink()):
        raise AnalysisError(f"{target}: there is something already: give another name, or --replace")


def _write(grid: Grid, part: Path, written: Written) -> None:
    path = plan_file(grid.name)
    plan = Reader(grid.storage).read(path)
    kinds = parse_plan(plan, storage=grid.storage, name=grid.name).kinds
    if not is_inside(path):
        raise AnalysisError(f"grid {grid.name}: no bundle can hold a name like that: launch the grid under another")
    sums: dict[str, str] = {}
    # Stored as they are: curves and predictions hardly shrink, and each version of zlib would give other bytes.
    with zipfile.ZipFile(part, "x", zipfile.ZIP_STORED) as archive:
        _add(archive, path, plan, sums)
        folders = sorted((stage_folder(kind, stage_id), kind) for stage_id, kind in kinds.items())
        for start in range(0, len(folders), STAGES_AT_ONCE):
            for name, data in _files(grid.reader, dict(folders[start : start + STAGES_AT_ONCE]), written):
                _add(archive, name, data, sums)
        manifest = {"schema_version": BUNDLE_VERSION, "grid": grid.name, "files": dict(sorted(sums.items()))}
        _add(archive, MANIFEST, f"{json.dumps(manifest, indent=1, ensure_ascii=False)}\n".encode(), {})
    written.files = len(sums)


def _add(archive: zipfile.ZipFile, path: str, data: bytes, sums: dict[str, str]) -> None:
    member = zipfile.ZipInfo(path, _EPOCH)
    member.create_system, member.external_attr = 3, 0o644 << 16  # on every system alike
    archive.writestr(member, data)
    sums[path] = hashlib.sha256(data).hexdigest()


def _files(reader: Reader, folders: Mapping[str, str], written: Written) -> Iterator[tuple[str, bytes]]:
    """The files of some stages, by path. folders: the kind of each stage by its folder."""
    told = reader.read_many([f"{folder}/{name}" for folder in folders for name in (RECORD, FAILURE)], written.problems)
    curves, others = dict[str, Record](), dict[str, int | None]()
    for folder, kind in folders.items():
        written.stages += any(f"{folder}/{name}" in told for name in (RECORD, FAILURE))
        try:
            record = parse_record(told[f"{folder}/{RECORD}"])
            sizes = files_of(record)
        except KeyError:
            continue
        except (ValueError, TypeError) as error:
            written.problems.append(
                f"{folder}/{RECORD}: {said(error)}; it is in the bundle as it is, its files are not"
            )
            continue
        if kind in ("teacher", "cell"):
            curves[f"{folder}/{curve_file(record)}"] = record
            dropped = {weights_file(record), curve_file(record), RECORD, FAILURE}
            named: dict[str, int | None] = {name: n for name, n in (sizes or {}).items() if name not in dropped}
        else:
            known: Mapping[str, int | None] = dict.fromkeys(FACTS[:1]) if sizes is None else sizes
            named = {name: size for name, size in known.items() if name in FACTS} if kind == "dataset" else {}
        others |= {f"{folder}/{name}": size for name, size in named.items()}
    yield from sorted(told.items())
    unread: list[str] = []
    found = reader.read_many([*curves], unread)
    named_already = {line.partition(": ")[0] for line in unread}
    written.problems += unread
    for path, record in curves.items():
        if path not in found:
            written.problems += [] if path in named_already else [f"{path}: missing"]
        elif not is_of_record(record, CURVE, found[path]):
            written.problems.append(f"{path}: not the curve of its record: left out")
        else:
            yield path, found[path]
    for path, size in others.items():
        data = _named(reader, path, size, written.problems)
        if data is not None:
            yield path, data


def _named(reader: Reader, path: str, size: int | None, problems: list[str]) -> bytes | None:
    """A file that a record names with its size; None where it is not that, with a line that says why."""
    if not _NAME.fullmatch(path.rpartition("/")[2]) or path.count("/") != 2:
        problems.append(f"{path}: no name of a file: left out")
        return None
    if (size or 0) > file_limit(path):
        problems.append(f"{path}: {too_large(file_limit(path)).strerror}: left out")
        return None
    try:
        data = reader.read(path)
    except FileNotFoundError:
        problems.append(f"{path}: missing")
        return None
    except AnalysisError as error:  # of the storage, which names the path
        problems.append(str(error))
        return None
    if size not in (None, len(data)) or len(data) > file_limit(path):
        problems.append(f"{path}: not of the size that its record names: left out")
        return None
    hashed = _HASHED.search(path)
    if hashed is not None and not hashlib.sha256(data).hexdigest().startswith(hashed[1]):
        problems.append(f"{path}: not the bytes that its name is of: left out")
        return None
    return data


def left_out(grid: Grid) -> list[str]:
    """A line on the stages that have no result to bundle; nothing where all have."""
    open_ = grid.stages.filter(pl.col("status").is_in(["running", "missing"])).unique("stage_id")
    if open_.is_empty():
        return []
    counts = open_["status"].value_counts().sort("status", descending=True).iter_rows()
    what = ", ".join(f"{count} {status}" for status, count in counts)
    stages = grid.stages["stage_id"].n_unique()
    return [f"{open_.height} of {stages} stages are unfinished and not in the bundle: {what}"]
