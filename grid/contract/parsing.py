"""JSON and times as files of a storage hold them: whatever is wrong is a ValueError that says what, on one line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

# Clocks of machines differ, but not by more than this.
CLOCK_SKEW = timedelta(minutes=10)
_HALVES = re.compile(rb"\\u[dD][89a-fA-F]")  # of characters beyond 16 bits, which JSON may hold alone
LARGEST = 10**300  # what counts and times are computed with is a float


def parse_json(data: bytes | str) -> Any:
    """The document. Raises ValueError where it is none, is nested too deeply, has a key twice, a number that is not
    finite or far too large for a float, or text that is no Unicode."""
    data = data.encode() if isinstance(data, str) else data
    try:
        document = json.loads(data, object_pairs_hook=_checked)
        if _HALVES.search(data):
            json.dumps(document, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeError as error:
        raise ValueError(f"not text in UTF-8: {error}") from None
    return document


def parse_object(data: bytes | str) -> dict[str, Any]:
    """As `parse_json`; raises ValueError for any other document than an object, too."""
    document = parse_json(data)
    if not isinstance(document, dict):
        raise ValueError(f"not an object of JSON but {'a list' if isinstance(document, list) else 'a value'}")
    return document


def _checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {next(name for name in found if names.count(name) > 1)!r} twice")
    check_finite(found)
    for name, value in pairs:
        if type(value) is int and not -LARGEST <= value <= LARGEST:
            raise ValueError(f"{name} is far too large a number")
    return found


def check_finite(values: Mapping[str, Any]) -> None:
    """Raises ValueError that names all numbers that are none, or infinite."""
    wrong = [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} not finite")


def parse_time(text: Any) -> datetime:
    """Of ISO 8601; in UTC where it names no zone. Raises ValueError."""
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo is not None else time.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time of ISO 8601") from None


def told_at(text: Any, now: datetime) -> datetime:
    """When a sign was given. Raises ValueError for no time, and for one that this machine's clock will not reach soon:
    nobody can say how old such a sign is."""
    time = parse_time(text)
    if time > now + CLOCK_SKEW:
        raise ValueError(of_the_future(time.isoformat(timespec="seconds")))
    return time


def of_the_future(time: str) -> str:
    return f"its time, {time}, lies in the future: a clock is wrong"


def parse_progress(facts: dict[str, Any]) -> tuple[float, float]:
    """How many epochs or views are done, of how many. Raises ValueError."""
    done, total = (_number(name, facts.get(name)) for name in ("done", "total"))
    if not (0 <= done <= 2**53 and 1 <= total <= 2**53):
        raise ValueError(f"{done:g} of {total:g} is no progress")
    return done, total


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        said = repr(value)
        raise ValueError(f"{name} is {said if len(said) <= 40 else f'{said[:40]}...'}, not a number")
    return float(value)
