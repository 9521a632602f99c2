"""A prepared data set as stages open it: compared with its fingerprint, for its files may have changed since."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from pathlib import Path

from grid.contract.layout import RECORD
from grid.contract.limits import size_limit
from grid.contract.local_files import read_local
from grid.errors import UserError
from grid.plan import DatasetStage
from grid.private import machine_folder
from grid.store.records import RecordError, record_from_json
from grid.store.store import Store
from kd.data.dataset import MADE_AGAIN, Dataset, check_fingerprint, open_dataset
from kd.data.sources import DatasetError


def open_prepared(stage: DatasetStage, store: Store) -> Dataset:
    """Its files are read through once a machine, and again when any of them has changed: hashing takes longer than
    opening them. Raises DatasetError where they are not what was prepared."""
    folder = store.local_folder(stage.folder)
    dataset = open_dataset(folder)
    _check_planned(dataset, stage, folder)
    try:
        mark = machine_folder() / "prepared" / _state(folder, dataset)
        mark.parent.mkdir(exist_ok=True)
        lock = open(mark.with_suffix(".lock"), "wb")  # noqa: SIM115 (what fails below is no matter of the lock)
    except (OSError, UserError):  # without a place of this machine's own it is looked at each time
        check_fingerprint(dataset, folder)
        return dataset
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the cells of a machine start together
        if not mark.exists():
            check_fingerprint(dataset, folder)
            mark.touch()
    return dataset


def _check_planned(dataset: Dataset, stage: DatasetStage, folder: Path) -> None:
    """Whole files may be those of other images, or of another preparation than the record's."""
    info, fingerprint = stage.dataset.info, None
    with contextlib.suppress(OSError, RecordError):  # a record that is none is no matter of the images
        fingerprint = record_from_json(read_local(str(folder / RECORD), size_limit(RECORD))).dataset_fingerprint
    for name, count in stage.dataset.splits.items():
        expected = (count, info.height, info.width, info.channels)
        if tuple(dataset.split(name).images_NHWC.shape) != expected:
            found = tuple(dataset.split(name).images_NHWC.shape)
            raise DatasetError(f"prepared data set {folder}: {name} is {found}, {expected} were planned{MADE_AGAIN}")
    if fingerprint not in (None, dataset.meta.fingerprint):
        raise DatasetError(f"prepared data set {folder}: dataset.json is not that of its record{MADE_AGAIN}")


def _state(folder: Path, dataset: Dataset) -> str:
    """Of the files as they lie there. The time of the last change of a file's facts cannot be set by anybody."""
    facts = [str(folder.resolve()), dataset.meta]
    for path in sorted([*folder.glob("*.npy"), folder / "dataset.json"]):
        there = path.stat()
        facts.append((path.name, there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
