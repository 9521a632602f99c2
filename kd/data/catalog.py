"""The data sets known by name, as facts: enough to plan a grid without reading a pixel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is read.

    pool_images: labelled images there are to split. test_images: images of the official test set, or None where there
    is none and the test split is drawn from the pool. sha256: of the uint8 NCHW pixels then the int64 labels, in
    loading order; data that hash otherwise are refused, so that an id always means the same images.
    """

    name: str
    classes: int
    channels: int
    height: int
    width: int
    pool_images: int
    test_images: int | None
    sha256: str


CATALOG: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="digits",
            classes=10,
            channels=1,
            height=8,
            width=8,
            pool_images=1797,
            test_images=None,
            sha256="0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382",
        ),
    )
}
