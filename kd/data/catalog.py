"""What is known of data sets before a pixel is read, as facts: enough to plan a grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

ClassOrder = Literal["text", "natural"]


@dataclass(frozen=True)
class DatasetInfo:
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    name: str
    classes: int
    channels: int
    height: int
    width: int
    pool_images: int
    """Labelled images there are to train on and to draw splits from."""
    val_images: int | None
    """Of an official split, None where there is none and the split is drawn from the pool."""
    test_images: int | None
    """Of an official split, None where there is none and the split is drawn from the pool."""
    source: str
    """Names the images' bytes (a hash, or a publisher's release), so that an id always means the same images."""
    some_classes: tuple[str, ...] = field(default=(), compare=False)
    """What the first few are called. For people: it makes no difference."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What there is to say of the images. For people: it makes no difference."""


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
            val_images=None,
            test_images=None,
            # sha256 of the uint8 NCHW pixels, then the int64 labels, in loading order.
            source="0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382",
        ),
        *(
            DatasetInfo(
                name=f"cifar{classes}",
                classes=classes,
                channels=3,
                height=32,
                width=32,
                pool_images=50_000,
                val_images=None,
                test_images=10_000,
                source=f"cifar-{classes}-python",
            )
            for classes in (10, 100)
        ),
    )
}
