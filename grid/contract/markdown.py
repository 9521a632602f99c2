"""Text of others as markdown shows it: names, labels and records may hold any sign, and none of it becomes markup."""

from __future__ import annotations

import re

from grid.contract.text import on_one_line

_MEANINGFUL = re.compile(
    r"[\\`*<>|$]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|&(?=[#\w])|^#|~(?=~)|(?<=~)~|^[-+](?=[\s-]|$)"
)
_NUMBERED = re.compile(r"^(\d{1,9})(?=[.)](?:\s|$))")


def escape_markdown(text: object) -> str:
    """Text that markdown shows as it is, on one line. What means nothing where it stands is left as it is, for those
    who read it raw: an underscore within a word, brackets that make no link."""
    return _NUMBERED.sub(r"\1\\", _MEANINGFUL.sub(r"\\\g<0>", on_one_line(str(text))))


def code_span(text: object) -> str:
    """Text as code within a line, whatever backticks it has."""
    line = on_one_line(str(text))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    fence = "`" * (_longest_run(line) + 1)
    return f"{fence}{space}{line}{space}{fence}"


def code_block(text: str, language: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
