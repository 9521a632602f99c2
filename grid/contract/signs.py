"""Whether a stage is worked on, by what lies in its folder: the lease of whoever works on it, which is renewed every
few seconds, how far it is, and the failure of an earlier try. One rule for all who tell people of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from grid.contract.parsing import parse_object, parse_progress, parse_time, told_at
from grid.contract.processes import is_gone
from grid.contract.record import Record

LEASE_SILENT = timedelta(minutes=1)
# Progress is told at each epoch, and within one every ten minutes unless the grid says otherwise.
PROGRESS_SILENT = timedelta(minutes=30)

_LEASE = re.compile(r"lease-(\d+)\.json")

# silent: was worked on and tells nothing any more.
SignedState = Literal["done", "failed", "running", "silent", "waiting"]


@dataclass(frozen=True)
class Sign:
    """What a stage that is worked on last told of itself."""

    at: datetime
    silent_after: timedelta
    launch: str | None = None
    host: str | None = None
    started_at: datetime | None = None
    done: float | None = None
    """Of `total` epochs or views."""
    total: float | None = None
    gone: bool = False
    """Whether its process, on this very machine, has ended."""

    def is_alive(self, now: datetime) -> bool:
        return not self.gone and now - self.at <= self.silent_after

    @property
    def fraction(self) -> float | None:
        """None where it does not tell how far it is."""
        return None if self.done is None or self.total is None else min(1.0, self.done / self.total)


def lease_file(number: int) -> str:
    return f"lease-{number:04d}.json"


def numbered(names: Iterable[str]) -> dict[int, str]:
    """The leases among the names in a stage's folder, by number, ascending: the last one counts."""
    return dict(sorted((int(found[1]), name) for name in names if (found := _LEASE.fullmatch(name))))


def lease_sign(data: bytes, now: datetime) -> Sign:
    """Of a lease. Raises ValueError with the reason that it is none."""
    facts = parse_object(data)
    gone = is_gone(facts.get("machine"), facts.get("pid"), facts.get("born"))
    return replace(_sign(facts, now, LEASE_SILENT), gone=gone)


def progress_sign(data: bytes, now: datetime) -> Sign:
    """Of what a stage tells of its progress. Raises ValueError with the reason that it is none."""
    facts = parse_object(data)
    done, total = parse_progress(facts)
    return replace(_sign(facts, now, PROGRESS_SILENT), done=done, total=total)


def _sign(facts: Mapping[str, Any], now: datetime, silent_after: timedelta) -> Sign:
    at = told_at(facts.get("at"), now)
    started_at = parse_time(facts["started_at"]) if facts.get("started_at") else None
    launch, host = (str(facts[name]) if facts.get(name) else None for name in ("launch", "host"))
    return Sign(at, silent_after, launch, host, started_at)


def together(lease: Sign | None, progress: Sign | None) -> Sign | None:
    """The lease says whether and where a stage runs, the progress how far it is."""
    if lease is None or progress is None:
        return lease or progress
    started_at = lease.started_at or progress.started_at
    return replace(lease, started_at=started_at, done=progress.done, total=progress.total)


def state_of(*, done: bool, failure: Record | None, sign: Sign | None, now: datetime) -> SignedState:
    """How a stage stands. failure: the record of one; sign: what it last told of itself."""
    if done:
        return "done"
    if failure is not None and (sign is None or not _came_after(sign, failure, now)):
        return "failed"
    if sign is None:
        return "waiting"
    return "running" if sign.is_alive(now) else "silent"


def _came_after(sign: Sign, failure: Record, now: datetime) -> bool:
    """Whether a stage that failed is worked on again, which the launch that it failed in does not."""
    if sign.launch is not None and sign.launch == failure.launch:
        return False
    return sign.at > finished_at(failure, now)


def finished_at(record: Record, now: datetime) -> datetime:
    """Of a record that does not say, or says a time that is yet to come: never, so that it stands for whatever is
    asked."""
    try:
        return told_at(record.finished_at, now)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
