"""Text that strangers wrote: which characters a name may hold, and how any text is shown without harm.

Control characters (ESC, BEL, CR, NUL), format characters (among them those that turn the direction of writing), lone
surrogates, private code points, those that are no characters, and the separators of lines and paragraphs are what a
terminal, a typesetter or an eye takes for something else than a letter. Two format characters are part of words: the
joiners that Persian, the scripts of India and joined emoji are written with. Neither moves or hides anything. A code
point that this Python knows no character for may be a letter that is younger than it.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable
from typing import TextIO

JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"

# How signs are written where a terminal's encoding does not have them. The marks of a gain and of a loss stay apart.
IN_ASCII = {"▲": "(+)", "▼": "(-)", "▽": "(v)", "→": "->", "±": "+-", "—": "--", "−": "-", "×": "x", "…": "..."}

_IN_ASCII = "kd-grid-in-ascii"  # what str.encode calls it

# All others are harmless: most text is passed over at once.
_SUSPECT = re.compile("[^ -~\n\t]")


def is_hidden(character: str) -> bool:
    """Whether a character is no letter, sign or space, but something that acts on the text around it."""
    category = unicodedata.category(character)
    if category == "Cn":
        return ord(character) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(character) <= 0xFDEF
    return (category[0] == "C" or category in ("Zl", "Zp")) and character not in JOINERS


def hidden_character(text: str) -> str | None:
    """The first character that a name may not hold, as U+202E; line breaks and tabs are such too."""
    return next((f"U+{ord(character):04X}" for character in text if is_hidden(character)), None)


def harmless(text: str) -> str:
    """The text as it may be sent to a terminal or a page: what is hidden is spelled out, as \\x1b or \\u202e. Line
    breaks and tabs stay."""
    return _spelled_out(text, lambda character: character.encode("unicode_escape").decode())


def harmless_json(text: str) -> str:
    """JSON that says the same, with what is hidden in its strings as JSON spells it."""
    return _spelled_out(text, lambda character: json.dumps(character)[1:-1])


def on_one_line(text: str) -> str:
    """Words with one space between them, and nothing hidden."""
    return harmless(" ".join(text.split()))


def in_encoding(text: str, encoding: str) -> str:
    """The text in characters that an encoding has: signs as IN_ASCII writes them, all others as \\xe9 or \\u5b66, so
    that what differs stays different."""
    return text.encode(encoding, _IN_ASCII).decode(encoding)


def encoding_of(stream: TextIO) -> str:
    """A stream in memory has none, and holds everything."""
    return getattr(stream, "encoding", None) or "utf-8"


def shown_on(stream: TextIO, text: str) -> str:
    """The text as it may be written to a stream: `harmless`, and in its encoding."""
    return in_encoding(harmless(text), encoding_of(stream))


def path_problem(path: str) -> str | None:
    """Why plans and records cannot name a path, or this process cannot open it, as the predicate of a sentence; None
    where nothing is in the way."""
    try:
        path.encode()
        if "://" not in path:
            os.fsencode(path)
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        if encoding != "utf-8":
            return f"cannot be read as text, for this locale's file names are in {encoding}: set PYTHONUTF8=1"
        return "is not in UTF-8, which plans and records are written in: rename it"
    return None


def shown_path(path: str) -> str:
    """With the bytes that are no text as \\xe9, as a shell's $'...' takes them."""
    return harmless(path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def _written_in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    written = (IN_ASCII.get(one) or one.encode("ascii", "backslashreplace").decode() for one in missing)
    return "".join(written), error.end


codecs.register_error(_IN_ASCII, _written_in_ascii)


def _spelled_out(text: str, how: Callable[[str], str]) -> str:
    return _SUSPECT.sub(lambda found: how(found[0]) if is_hidden(found[0]) else found[0], text)
