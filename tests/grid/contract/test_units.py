"""Numbers are shown alike by the launch and the tables."""

from __future__ import annotations

import pytest

from grid.contract.units import duration, human, shown_hours, sized


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.96, "1.0K"),
        (1_000, "1.0K"),
        (25_474, "25.5K"),
        (999_940, "999.9K"),
        (999_960, "1.0M"),
        (1_000_000, "1.0M"),
        (85_875_556, "85.9M"),
        (999_960_000, "1.0B"),
        (1_500_000_000, "1.5B"),
        (2.5e12, "2.5T"),
        (999.96e12, "1.0P"),
        (3e18, "3000.0P"),
    ],
)
def test_counts_for_people(count: float, text: str) -> None:
    assert human(count) == text
    assert human(count, billion="G") == text.replace("B", "G")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 KiB"),
        (2048, "2 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (3 * 2**20, "3.0 MiB"),
        (2**30 - 1, "1.0 GiB"),
        (1.5 * 2**30, "1.5 GiB"),
        (2**40 - 1, "1.0 TiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_sizes_for_people(count: float, text: str) -> None:
    assert sized(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (120, "2 min"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (4000, "1 h 6 min"),
        (-3, "0 s"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.0001, "0.4 s"), (59.97 / 3600, "1.0 min"), (0.5, "30.0 min"), (59.97 / 60, "1.0 h"), (1234.56, "1,234.6 h")],
)
def test_hours_in_a_column(hours: float, text: str) -> None:
    assert shown_hours(hours) == text
