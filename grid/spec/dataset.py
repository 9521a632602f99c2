"""Which images, and how they are split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from grid.spec.strict import Name, Strict, first_twice, path_alone, shortened
from kd.data.catalog import CATALOG, ClassOrder, DatasetInfo
from kd.limits import CLASSES, IMAGE_SIDE, check_at_most


class ParquetSpec(Strict):
    """Parquet files by split, each a path or a pattern."""

    train: Name
    val: Name | None = None
    test: Name | None = None
    image: Name | None = None
    """A column (default: the hub's usual names)."""
    label: Name | None = None
    """A column (default: the hub's usual names)."""

    _no_url = field_validator("train", "val", "test")(path_alone)

    @property
    def files(self) -> dict[str, str]:
        """What is given, by split."""
        given = {"train": self.train, "val": self.val, "test": self.test}
        return {split: pattern for split, pattern in given.items() if pattern is not None}


def _in_words(names: Any) -> Any:
    """YAML takes 1 for a number, and a folder may be called so."""
    if not isinstance(names, list | tuple):
        return names
    return tuple(str(name) if isinstance(name, int) and not isinstance(name, bool) else name for name in names)


def _check_facts(info: DatasetInfo) -> None:
    """Raises ValueError for what no images can be, or none that are of use."""
    if max(info.height, info.width) > IMAGE_SIDE:
        raise ValueError(
            f"{info.name} has images of {info.width:,} x {info.height:,} pixels: resize them (image_size, at most "
            f"{IMAGE_SIDE:,})"
        )
    check_at_most("the number of classes", info.classes, CLASSES)
    counts = (info.pool_images, info.val_images or 0, info.test_images or 0)
    if min(info.height, info.width, info.classes, info.channels) < 1 or min(counts) < 0:
        raise ValueError("facts: not those of any images; leave them out: they are found")


class DatasetSpec(Strict):
    """Which images, and how they are split.

    A data set known by name, or under a name of yours: parquet files, or a folder with train/<class>/ and perhaps val/
    and test/.
    """

    name: Name
    parquet: ParquetSpec | None = None
    folder: Name | None = None
    image_size: int | None = Field(default=None, ge=1, le=IMAGE_SIDE)
    """The images of files and folders are resized to squares of it (None: they all have the same size)."""
    channels: Literal[1, 3] = 3
    """Those of files and folders have so many."""
    white: int | None = Field(default=None, ge=1, le=65_535)
    """The value of 16-bit gray pictures that becomes 255 (None: their upper 8 bits are read)."""
    classes: Annotated[tuple[Name, ...], BeforeValidator(_in_words), Field(min_length=1)] | None = None
    """What they are called, or their labels, in the order of their numbers."""
    class_order: ClassOrder = "text"
    """Of names, where no such list is given: as text (1, 10, 2), or natural as in timm (1, 2, 10)."""
    train_size: int | None = Field(default=None, ge=1)
    """None: all that the other splits leave."""
    val_size: int = Field(default=0, ge=0)
    """Of a split that is drawn, where there is no official one."""
    test_size: int | None = Field(default=None, ge=1)
    """Of a split that is drawn, where there is no official one."""
    split_seed: int = Field(default=0, ge=0)
    data: Name | None = None
    """The folder that holds the files of a data set known by name."""
    facts: DatasetInfo | None = None
    """Filled in when it is found."""

    _no_url = field_validator("folder", "data")(path_alone)

    @property
    def is_known(self) -> bool:
        """Whether there is an `info` yet."""
        return self.facts is not None or (self.parquet is None and self.folder is None)

    @property
    def is_downloaded(self) -> bool:
        """Whether a launch downloads the images, for nothing says where they are. `--data` may say so."""
        return self.name != "digits" and not (self.parquet or self.folder or self.data)

    @property
    def place(self) -> str | None:
        """The folder that the images lie in, None for those that come with the program or are downloaded."""
        return self.folder or self.data or (str(Path(self.parquet.train).parent) if self.parquet is not None else None)

    @property
    def info(self) -> DatasetInfo:
        """Known once the images are found (`grid.read.datasets.located`)."""
        return self.facts or CATALOG[self.name]

    @property
    def splits(self) -> dict[str, int]:
        """Images in each split."""
        info = self.info
        drawn_val = self.val_size if info.val_images is None else 0
        drawn_test = (self.test_size or 0) if info.test_images is None else 0
        rest = info.pool_images - drawn_val - drawn_test
        return {
            "train": rest if self.train_size is None else self.train_size,
            "val": drawn_val if info.val_images is None else info.val_images,
            "test": drawn_test if info.test_images is None else info.test_images,
        }

    @model_validator(mode="after")
    def _known_and_large_enough(self) -> Self:
        own = self.parquet is not None or self.folder is not None
        if self.parquet is not None and self.folder is not None:
            raise ValueError("give parquet or folder, not both")
        if not own and self.name not in CATALOG:
            raise ValueError(
                f"unknown data set {shortened(self.name)}; known: {', '.join(sorted(CATALOG))}; or give parquet or "
                "folder"
            )
        if not own and self.image_size is not None:
            raise ValueError(f"image_size belongs to parquet and folder: {self.name}'s own size is known")
        for key in ("white", "classes", "class_order"):
            if not own and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} belongs to parquet and folder: {self.name}'s own is known")
        if self.classes is not None:
            twice = first_twice(self.classes)
            if twice is not None:
                raise ValueError(f"classes: {shortened(twice)} is given twice")
            if self.class_order != "text":
                raise ValueError("give classes or class_order, not both")
        if not self.is_known:
            return self
        info = self.info
        _check_facts(info)
        for split, official in (("val", info.val_images), ("test", info.test_images)):
            size = self.val_size if split == "val" else self.test_size
            if official is not None and size:
                raise ValueError(f"{self.name} has an official {split} set of {official}: leave {split}_size out")
        if info.test_images is None and self.test_size is None:
            raise ValueError(f"{self.name} has no official test set: give test_size")
        splits = self.splits
        officially = {"val": info.val_images, "test": info.test_images}
        for split, size in splits.items():
            # An official one may lack some, which is told.
            if size and size < info.classes and officially.get(split) is None:
                raise ValueError(f"{split}_size {size} leaves out some of the {info.classes} classes")
        drawn = sum(
            max(size, 1) if split == "train" else size
            for split, size in splits.items()
            if split == "train" or (info.val_images if split == "val" else info.test_images) is None
        )
        if drawn > info.pool_images:
            raise ValueError(f"the splits ask for {drawn} images, {self.name} has {info.pool_images}")
        return self
