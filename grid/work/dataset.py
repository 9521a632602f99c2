"""The images as arrays on the storage: prepared once, and compared with their fingerprint by whoever opens them, for
their files may have changed since."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import logging
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from grid.contract.files.layout import RECORD
from grid.contract.files.limits import size_limit
from grid.contract.files.local_files import read_local
from grid.errors import UserError, one_line
from grid.plan import DatasetStage
from grid.private import machine_folder
from grid.read.datasets import names_in, source_of
from grid.store.lease import LOOK_SECONDS, Holds, Leases, always
from grid.store.records import RecordError, record_from_json
from grid.store.store import Store
from grid.work.execute import Runtime
from grid.work.publish import check_held, publish
from kd.data.dataset import MADE_AGAIN, Dataset, check_fingerprint, meta_to_json, open_dataset, prepare
from kd.data.sources import DatasetError

log = logging.getLogger("kd_grid")

NAMES_BYTES = 2**18  # of all classes, on a record: it may have 2**20 in all


def prepare_dataset(stage: DatasetStage, store: Store, runtime: Runtime, *, holds: Holds = always) -> None:
    """Read and split the images and publish them as arrays. holds: as `publish`."""
    started = time.perf_counter()
    spec = stage.dataset
    source = source_of(spec)
    meta, arrays = prepare(
        source,
        spec.info,
        train_size=spec.train_size,
        val_size=spec.val_size,
        test_size=spec.test_size,
        split_seed=spec.split_seed,
    )
    files: dict[str, Callable[[], bytes]] = {f"{name}.npy": partial(_npy, array) for name, array in arrays.items()}
    files["dataset.json"] = meta_to_json(meta).encode
    sizes, left_over = {}, store.left_over(stage)
    for name, made in files.items():
        data = made()
        check_held(stage, store, holds)
        store.write(f"{stage.folder}/{name}", data)
        sizes[name] = len(data)
    seconds = time.perf_counter() - started
    values = stage.axes() | runtime.provenance() | {"dataset_fingerprint": meta.fingerprint, "seconds_total": seconds}
    names = json.dumps(names_in(source, spec), ensure_ascii=False)
    values["class_names"] = names if names != "null" and len(names.encode()) <= NAMES_BYTES else None
    publish(stage, store, values, sizes=sizes, left_over=left_over, holds=holds)


def opened(stage: DatasetStage, store: Store, runtime: Runtime) -> Dataset:
    """The prepared images; where their files are not what was prepared, they are prepared again, once for all that open
    them. Raises DatasetError that says why they cannot be prepared here."""
    try:
        return open_prepared(stage, store)
    except DatasetError as error:
        problem = str(error).removesuffix(MADE_AGAIN)
        log.warning("%s; it is prepared again", problem)
    # A name of its own, for a launch's own leases are taken over.
    leases = Leases(store, f"{runtime.launch} {uuid.uuid4().hex[:8]}")
    while (lease := leases.take(stage.folder)) is None:
        time.sleep(LOOK_SECONDS * store.slowness)
    with lease:
        with contextlib.suppress(DatasetError):
            return open_prepared(stage, store)  # another has done it
        if store.is_done(stage):
            store.condemn(stage, "dataset.json: its images, or these facts of them, are not what was prepared")
        try:
            prepare_dataset(stage, store, runtime, holds=lease.holds)
        except (DatasetError, UserError, OSError) as error:
            raise DatasetError(
                f"{problem}; it cannot be prepared again here ({one_line(error)}): launch the grid again where its "
                "images are"
            ) from error
    return open_prepared(stage, store)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


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
