from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from grid.contract.parsing import parse_json, parse_progress, parse_time, told_at

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)


def test_json_is_read_as_it_is() -> None:
    text = '{"a": [1, 2.5, null, true], "b": {"c": "\\ud83d\\ude00"}, "d": 1e300}'
    assert parse_json(text) == {"a": [1, 2.5, None, True], "b": {"c": "\U0001f600"}, "d": 1e300}
    assert parse_json(text.encode()) == parse_json(text)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'{"a": 1, "b": 2, "a": 3}', "it has 'a' twice"),
        (b'{"x": {"a": 1, "a": 1}}', "it has 'a' twice"),
        (b'{"a": NaN}', "a is not finite"),
        (b'{"a": 1e999, "b": -Infinity}', "a, b are not finite"),
        (b'{"a": 1' + b"0" * 400 + b"}", "a is far too large a number"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "Exceeds the limit"),
        (b'{"a": "\\ud800"}', "not text in UTF-8"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b'{"a": ', "Expecting value"),
    ],
)
def test_what_no_program_should_read_is_a_value_error_on_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        parse_json(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [None, 7, "soon", "", "9999-99-99", ["2026"]])
def test_what_is_no_time(text: Any) -> None:
    with pytest.raises(ValueError, match=r"is no time of ISO 8601"):
        parse_time(text)


def test_a_time_without_a_zone_is_in_utc() -> None:
    assert parse_time("2026-05-04T12:00:00") == NOW


def test_a_sign_may_be_ahead_by_as_much_as_clocks_differ() -> None:
    for ahead in (timedelta(0), timedelta(minutes=9)):
        assert told_at((NOW + ahead).isoformat(), NOW) == NOW + ahead
    with pytest.raises(
        ValueError, match=r"^its time, 2026-05-06T12:00:00\+00:00, lies in the future: a clock is wrong$"
    ):
        told_at((NOW + timedelta(days=2)).isoformat(), NOW)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"done": 1},
        {"done": 1, "total": 0},
        {"done": 1, "total": 1e-308},
        {"done": -1, "total": 2},
        {"done": 10**299, "total": 2},
        {"done": True, "total": 2},
        {"done": "1", "total": 2},
        {"done": 1, "total": [2]},
    ],
)
def test_what_is_no_progress(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is no progress|not a number"):
        parse_progress(facts)


def test_progress_is_done_of_total() -> None:
    assert parse_progress({"done": 0.5, "total": 2, "host": "far"}) == (0.5, 2.0)
