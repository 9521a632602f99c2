"""Image files in the formats that users bring, written by the tests: noise, for what they show does not matter."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def noise(count: int, *, height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    """uint8 [count, height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def png(image: np.ndarray, mode: str | None = None) -> bytes:
    picture = Image.fromarray(image.squeeze())
    buffer = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(buffer, format="PNG")
    return buffer.getvalue()


def write_cifar(folder: Path, name: str, *, train: int, test: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The publisher's on-disk format with images of noise; returns them, NHWC, with their labels, by split."""
    classes = int(name.removeprefix("cifar"))
    place = folder / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    place.mkdir(parents=True)
    key = "labels" if name == "cifar10" else "fine_labels"
    batches = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    if name == "cifar100":
        batches = {"train": ["train"], "test": ["test"]}
    written = {}
    for seed, (split, count) in enumerate((("train", train), ("test", test))):
        images, labels = noise(count, seed=seed), np.arange(count) % classes
        written[split] = (images, labels)
        for file, part in zip(batches[split], np.array_split(np.arange(count), len(batches[split])), strict=True):
            rows = images[part].transpose(0, 3, 1, 2).reshape(len(part), -1)
            with (place / file).open("wb") as out:
                pickle.dump({"data": rows, key: labels[part].tolist()}, out, protocol=2)
    return written


def archive_cifar(folder: Path, name: str) -> None:
    """Put the standard folder into the standard archive, and remove it."""
    place = folder / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    with tarfile.open(folder / f"cifar-{name.removeprefix('cifar')}-python.tar.gz", "w:gz") as tar:
        tar.add(place, arcname=place.name)
    for file in place.iterdir():
        file.unlink()
    place.rmdir()


def write_parquet(path: Path, pictures: list[bytes], labels: list[int] | list[str], *, image: str = "img") -> None:
    """As the Hugging Face hub stores images: a struct of bytes and path, and a label."""
    structs = [{"bytes": data, "path": None} for data in pictures]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({image: pa.array(structs, kind), "label": labels}), path)


def write_folder(folder: Path, splits: dict[str, int], *, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    """<split>/<class>/<number>.png, so many of each class."""
    for seed, (split, count) in enumerate(splits.items()):
        for place, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for number, image in enumerate(noise(count, height=12, width=12, seed=10 * seed + place)):
                (folder / split / name / f"{number}.png").write_bytes(png(image))
