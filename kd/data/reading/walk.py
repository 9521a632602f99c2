"""The pictures below a folder, its links included, and what else lies there."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kd.data.classes import counted
from kd.data.reading.decode import FORMATS
from kd.data.sources import DatasetError

HIDDEN_FOLDER, LOOP = "hidden folder", "link to a folder around it"


def pictures_below(folder: Path, *, around: Sequence[Path], left_out: Counter[str]) -> list[Path]:
    """In the order of their names. What is no picture is counted in `left_out`, by its kind.

    Links to folders are followed, but for those to one of `around`, the folders that this one lies in, and each folder
    is read once. Raises DatasetError for a link to a folder that neither this user nor root made: it could lead to any
    pictures of this user's.
    """
    outside, seen = {_place(path) for path in around}, set[tuple[int, int]]()
    found: list[Path] = []
    waiting, links = [folder], list[Path]()
    while waiting or links:
        # Links last, so that what lies here is called by its own place.
        at = waiting.pop() if waiting else links.pop(0)
        if at.is_symlink():
            check_link(at)
        place = _place(at)
        if place in outside:
            left_out[LOOP] += 1
        elif place not in seen:
            seen.add(place)
            for path in sorted(at.iterdir()):
                kind = kind_of(path)
                if kind is not None:
                    left_out[kind] += 1
                elif path.is_dir():
                    (links if path.is_symlink() else waiting).append(path)
                else:
                    found.append(path)
    return sorted(found)


def kind_of(path: Path) -> str | None:
    """As what it is left out; None for pictures, and for folders that may hold some."""
    try:
        mode = path.stat().st_mode
    except OSError:
        if path.is_symlink():  # to nothing, or to itself
            return "link that leads nowhere"
        raise
    if path.name.startswith("."):
        return HIDDEN_FOLDER if stat.S_ISDIR(mode) else "hidden"
    if stat.S_ISDIR(mode):
        return None
    if not stat.S_ISREG(mode):
        return "no regular file"
    return None if path.suffix.lower() in FORMATS else path.suffix.lower() or "without a suffix"


def told(left_out: Counter[str]) -> list[str]:
    """A line for people, such as "18 files left out (.heic)"."""
    several = {HIDDEN_FOLDER: "hidden folders", LOOP: "links to folders around them"}
    folders = [counted(left_out[kind], kind, more) for kind, more in several.items() if left_out[kind]]
    files = [(kind, count) for kind, count in sorted(left_out.items()) if kind not in several]
    parts = []
    if files:
        files.sort(key=lambda kind: -kind[1])
        which = files[0][0] if len(files) == 1 else ", ".join(f"{count:,} {kind}" for kind, count in files)
        parts.append(f"{counted(sum(count for _, count in files), 'file')} left out ({which})")
    return parts + [f"{text} left out" for text in folders]


def check_link(link: Path) -> None:
    """Raises DatasetError for a link that neither this user nor root made."""
    owner = link.lstat().st_uid
    if owner not in (os.geteuid(), 0):
        raise DatasetError(
            f"{link} is a link to a folder that user {owner} made, which is not followed: replace it by the folder, or "
            "by a link of your own"
        )


def _place(path: Path) -> tuple[int, int]:
    there = path.stat()
    return there.st_dev, there.st_ino
