"""Numbers as people read them. A unit is left for the next where it would show as a whole one of that: 1.0M, never
1000.0K."""

from __future__ import annotations

HOUR = 3600.0


def human(count: float, *, billion: str = "B") -> str:
    """25474 -> '25.5K', 85875556 -> '85.9M'. billion: B of things, G in front of a unit."""
    if round(count, 1) < 1000:
        return f"{count:g}"
    for limit, unit in ((1e3, "K"), (1e6, "M"), (1e9, billion), (1e12, "T")):
        if round(count / limit, 1) < 1000:
            return f"{count / limit:.1f}{unit}"
    return f"{count / 1e15:.1f}P"


def sized(count: float) -> str:
    """Bytes: 3_400_000_000 -> '3.2 GiB'."""
    if round(count / 2**10) < 1024:
        return f"{count / 2**10:.0f} KiB"
    for limit, unit in ((2**20, "MiB"), (2**30, "GiB")):
        if round(count / limit, 1) < 1024:
            return f"{count / limit:.1f} {unit}"
    return f"{count / 2**40:.1f} TiB"


def duration(seconds: float) -> str:
    """Time to wait, or gone by: '8 s', '2 min 5 s', '3 h 20 min'."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def shown_hours(hours: float) -> str:
    """Time in a column, to compare: '0.4 s', '12.3 min', '4.5 h'."""
    for unit, factor in (("s", HOUR), ("min", 60.0)):
        if round(hours * factor, 1) < 60:
            return f"{hours * factor:.1f} {unit}"
    return f"{hours:,.1f} h"
