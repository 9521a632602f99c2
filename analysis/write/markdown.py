"""Documents as markdown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from analysis.document import Document, Heading, Items, Note, Part
from grid.contract.markdown import escape_markdown
from grid.contract.text import in_encoding


def markdown(document: Document, *, encoding: str = "utf-8") -> str:
    """In characters that the encoding has, before the columns of tables are aligned."""

    def written(text: str) -> str:
        return in_encoding(escape_markdown(text), encoding)

    return "\n\n".join([f"### {written(document.title)}", *(_markdown_part(p, written) for p in document.parts)]) + "\n"


def _markdown_part(part: Part, written: Callable[[str], str]) -> str:
    if isinstance(part, Heading):
        return f"{'#' * (part.level + 2)} {written(part.text)}"
    if isinstance(part, Note):
        lead = f"**{written(part.lead)}**: " if part.lead else ""
        return lead + written(part.text)
    if isinstance(part, Items):
        return "\n".join(f"- {written(line)}" for line in part.lines)
    table = align(
        [written(name) for name in part.header],
        [[written(cell) for cell in line] for line in part.lines],
        right=part.right,
    )
    return f"{written(part.title)}\n\n{table}" if part.title else table


def align(header: Sequence[str], lines: Sequence[Sequence[str]], *, right: Sequence[bool]) -> str:
    """A markdown table padded so that it reads well raw. Cells are markdown already."""
    rows = [header, *lines]
    widths = [max(3, *(display_width(line[i]) for line in rows)) for i in range(len(header))]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    padded = [[_pad(cell, w, right=r) for cell, w, r in zip(line, widths, right, strict=True)] for line in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


# Latin letters, arrows and the marks of gains: nearly every cell, at once.
NARROW = re.compile("[ -~\u00a0-\u00ac\u00ae-\u02ff\u2014\u2190-\u21ff\u25b2\u25bc\u25bd]*")


def _pad(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - display_width(text))
    return space + text if right else text + space


def display_width(text: str) -> int:
    """How many columns of a terminal it takes: letters of East Asia and emoji two, what joins the one before none."""
    if NARROW.fullmatch(text):
        return len(text)
    seen = [character for character in text if unicodedata.category(character) not in ("Mn", "Me", "Cf")]
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in seen)
