"""From a grid's `dataset` to the images it means: where they are, and their facts, before anything is planned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from grid.contract.text import hidden_character, on_one_line
from grid.errors import UserError, check_path
from grid.private import downloads_folder, private_folder
from grid.spec.dataset import DatasetSpec, ParquetSpec
from grid.spec.strict import path_alone
from kd.data.catalog import CATALOG
from kd.data.class_names import CLASS_NAMES
from kd.data.classes import counted, listed
from kd.data.sources import DatasetError, Source
from kd.data.splits import draw

if TYPE_CHECKING:
    import numpy as np

    from kd.data.reading.encoded import How

# As the Hugging Face hub names a split's files.
SPLIT_FILES = {"train": ("train*",), "val": ("val*", "dev*"), "test": ("test*",)}


def located(dataset: DatasetSpec, data: str | None) -> DatasetSpec:
    """The data set with its images found and described. data: the folder of `--data`, for one known by name.

    Raises UserError for images that are not there, or cannot be read.
    """
    if data is not None:
        try:
            path_alone(data)
        except ValueError as error:
            raise UserError(f"--data: {error}") from None
        check_path("--data", data)
        dataset = _in_folder(dataset, Path(data).expanduser())
    patterns = dataset.parquet.files.values() if dataset.parquet is not None else ()
    for path in (dataset.folder, dataset.data, *patterns):
        if path is not None:
            check_path(f"data set {dataset.name}:", path)
    if dataset.facts is None and (dataset.parquet or dataset.folder or dataset.data):
        try:
            source = source_of(dataset)
            info = source.info
            _check_names(dataset.name, getattr(source, "classes", []))
            if info != CATALOG.get(dataset.name):
                dataset = dataset.model_copy(update={"facts": info})
            _check_draw(dataset, getattr(source, "train_labels", None))
        except (DatasetError, OSError) as error:
            raise UserError(" ".join(str(error).splitlines())) from None  # a name may hold line breaks
    return dataset


def _check_draw(dataset: DatasetSpec, labels_N: np.ndarray | None) -> None:
    """Splits that are to be drawn may leave out a class that has few images. Raises DatasetError."""
    try:
        DatasetSpec.model_validate(dataset.model_dump())
    except ValidationError:
        return  # which is told where the whole grid is checked
    if labels_N is not None:
        draw(
            labels_N,
            dataset.info,
            train_size=dataset.train_size,
            val_size=dataset.val_size,
            test_size=dataset.test_size,
            split_seed=dataset.split_seed,
        )


def _check_names(name: str, classes: Sequence[object]) -> None:
    """Classes are called as their folders are, or as a column says. Raises DatasetError for what is no name."""
    for label in classes:
        code = hidden_character(str(label))
        if code is not None:
            shown = on_one_line(repr(label))
            raise DatasetError(f"data set {name}: the class {shown} has the character {code} in its name: rename it")


def source_of(dataset: DatasetSpec) -> Source:
    """What reads the images. Raises DatasetError."""
    how: How = {
        "channels": dataset.channels,
        "size": dataset.image_size,
        "white": dataset.white,
        "classes": dataset.classes,
        "class_order": dataset.class_order,
    }
    if dataset.parquet is not None:
        from kd.data.reading.parquet import Parquet

        files = {split: _files(pattern, dataset.name) for split, pattern in dataset.parquet.files.items()}
        return Parquet(
            dataset.name,
            files,
            image=dataset.parquet.image,
            label=dataset.parquet.label,
            **how,
        )
    if dataset.folder is not None:
        from kd.data.reading.folder import ImageFolder

        folder = Path(dataset.folder).expanduser()
        return ImageFolder(dataset.name, folder, **how)
    if dataset.name == "digits":
        from kd.data.reading.digits import Digits

        return Digits()
    from kd.data.reading.cifar import Cifar

    own = Path(dataset.data) if dataset.data is not None else None
    return Cifar(dataset.name, own, downloads=lambda: private_folder(downloads_folder() / "data"))


def label_names(dataset: DatasetSpec) -> list[str] | None:
    """What the classes are called, by number; None where they have numbers alone, or where the images that named them
    are no longer what or where they were."""
    if _is_known_by_name(dataset):
        return list(CLASS_NAMES[dataset.name])
    try:
        source = source_of(dataset)
        if source.info != dataset.info:
            return None
    except (DatasetError, OSError):
        return None
    return names_in(source, dataset)


def names_in(source: Source, dataset: DatasetSpec) -> list[str] | None:
    """What a data set's source calls its classes, by number; None where they have numbers alone."""
    if _is_known_by_name(dataset):
        return list(CLASS_NAMES[dataset.name])
    classes = getattr(source, "classes", [])
    return list(classes) if all(isinstance(name, str) for name in classes) and classes else None


def _is_known_by_name(dataset: DatasetSpec) -> bool:
    is_own = dataset.folder is not None or dataset.classes is not None or dataset.class_order != "text"
    return dataset.name in CLASS_NAMES and not is_own


def described(dataset: DatasetSpec) -> list[str]:
    """For people, before anything runs: how many images and classes there are, and whatever is to be said of them."""
    info = dataset.info
    known = CLASS_NAMES.get(dataset.name) if dataset.folder is None and dataset.classes is None else None
    names = known or info.some_classes
    shown = f": {listed(names, of=info.classes)}" if names else ""
    sizes = ", ".join(f"{split} {size}" for split, size in dataset.splits.items())
    return [
        on_one_line(f"Data set {dataset.name} ({sizes}), {counted(info.classes, 'class', 'classes')}{shown}"),
        *(f"  {on_one_line(note)}" for note in info.notes),
    ]


def _in_folder(dataset: DatasetSpec, folder: Path) -> DatasetSpec:
    if dataset.parquet or dataset.folder or dataset.name == "digits":
        raise UserError(f"--data {folder}: the grid's data set {dataset.name} does not ask for it: leave it out")
    if not folder.is_dir():
        raise UserError(f"--data {folder}: no such folder")
    from kd.data.reading.cifar import ARCHIVES, FOLDERS, Cifar

    if Cifar.is_in(dataset.name, folder):
        return dataset.model_copy(update={"data": str(folder)})
    for place in (folder, folder / "data"):
        found = {
            split: next((f"{place}/{p}.parquet" for p in patterns if any(place.glob(f"{p}.parquet"))), None)
            for split, patterns in SPLIT_FILES.items()
        }
        if found["train"] and found["test"]:
            return dataset.model_copy(update={"parquet": ParquetSpec.model_validate(found)})
    raise UserError(
        f"--data {folder}: holds neither {FOLDERS[dataset.name]}/ nor {ARCHIVES[dataset.name]} nor train*.parquet and "
        "test*.parquet"
    )


def _files(pattern: str, name: str) -> list[Path]:
    try:
        path = Path(pattern).expanduser()
        files = sorted(found for found in path.parent.glob(path.name) if found.is_file())  # no pipes
    except (ValueError, RuntimeError) as error:  # ** within a name, no name at all, ~nobody
        raise DatasetError(f"data set {name}: no file can be called {pattern}: {error}") from None
    if not files:
        raise DatasetError(f"data set {name}: no file is called {path}")
    return files
