"""Who works on a stage: leases on the storage, so that launches share the work and never do a stage twice.

A lease is a file in the stage's folder, `lease-0001.json`; the one with the highest number counts. Whoever takes the
stage creates the next number, which only one of several can; the holder writes its file anew every few seconds. A
holder that is silent for a minute, or whose process is gone from this machine, is passed over.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

from grid.contract.files.local_files import OddFileError
from grid.contract.parsing import CLOCK_SKEW, parse_object, parse_time
from grid.contract.processes import born, is_gone, machine
from grid.contract.signs import LEASE_SILENT, lease_file, numbered
from grid.errors import one_line
from grid.store.records import now
from grid.store.store import Store

log = logging.getLogger("kd_grid")

BEAT_SECONDS = 10.0
SILENT_SECONDS = LEASE_SILENT.total_seconds()
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Holder:
    """A process that works on a stage."""

    launch: str
    host: str
    machine: str
    """What numbers its processes."""
    pid: int
    born: str
    """When this one began there."""
    started_at: str = ""
    beat: int = 0
    at: str = ""
    tries: int = 1
    """How often its launch has begun the stage; each but the last ended with the loss of a worker."""

    @classmethod
    def here(cls, launch: str, *, tries: int = 1) -> Holder:
        pid = os.getpid()
        return cls(launch, platform.node(), machine(), pid, born(pid), started_at=now(), tries=tries)

    def is_gone(self) -> bool:
        """Whether its process has certainly ended; never known of another machine."""
        return is_gone(self.machine, self.pid, self.born)


class Holds(Protocol):
    """Whether a stage is still this launch's, as `Lease.holds`."""

    def __call__(self, names: Sequence[str] | None = None) -> bool: ...


def always(names: Sequence[str] | None = None) -> bool:
    """What is asked of the lease of a stage that nobody else can be at."""
    return True


class Leases:
    """What a launch holds on a storage, seen from one of its processes. stop: the file that tells its stages to save
    what they have and leave. passed_over: a lease that another process of the launch has found silent, as `silent` gave
    it there."""

    def __init__(self, store: Store, launch: str, *, stop: str = "", passed_over: str | None = None) -> None:
        self.store, self.launch, self._stop, self._passed_over = store, launch, stop, passed_over
        self._seen: dict[str, tuple[bytes, float]] = {}
        self._last: dict[str, str] = {}  # by folder: the lease that counted when it was last looked at

    def stop(self) -> None:
        self.store.write(self._stop, b"")

    def stopping(self) -> bool:
        with contextlib.suppress(OSError):  # it may come back
            return bool(self._stop) and self.store.exists(self._stop)
        return False

    def other(self, folder: str) -> Holder | None:
        """The other launch's process that works on the stage in a folder; None where it is free, or this launch's."""
        _, holder, is_free = self._current(folder)
        return None if is_free else holder

    def silent(self, folder: str) -> str | None:
        """The lease of the stage in a folder, where this process has found its holder silent when it last asked for
        `other`: for one that begins only now and would have to listen as long."""
        data, since = self._seen.get(self._last.get(folder, ""), (b"", math.inf))
        return data.decode(errors="replace") if time.monotonic() - since > SILENT_SECONDS else None

    def take(self, folder: str) -> Lease | None:
        """The lease of the stage in a folder, unless another launch holds it. One of this launch itself is taken over:
        Ray has said that its worker is lost."""
        # Most stages are nobody's, so the first number is created without a look: should there be a higher one, that
        # counts.
        is_new = folder not in self._last
        while True:
            number, last, is_free = (0, None, True) if is_new else self._current(folder)
            is_new = False
            if not is_free:
                return None
            tries = last.tries if last is not None and last.launch == self.launch else 0
            mine = Holder.here(self.launch, tries=tries + 1)
            number += 1
            if not self.store.create(_path(folder, number), _bytes(mine)):
                continue
            names = self.store.names(folder)
            numbers = [*numbered(names)]
            if numbers[-1:] != [number]:  # what was looked at is long past
                self.store.remove(_path(folder, number))
                continue
            for old in numbers[:-1]:
                self.store.remove(_path(folder, old))
            return Lease(self, folder, number, mine, names)

    def _current(self, folder: str) -> tuple[int, Holder | None, bool]:
        """The highest number, whose it is, and whether the stage is free for this launch: it is its own, or the holder
        has gone."""
        numbers = [*numbered(self.store.names(folder))]
        if not numbers:
            self._last.pop(folder, None)
            return 0, None, True
        number, path = numbers[-1], _path(folder, numbers[-1])
        self._last[folder] = path
        try:
            data = self.store.read(path)
        except FileNotFoundError:
            return number, None, True  # given back at this moment
        except OddFileError as error:  # nobody's: a lease that is written is a file
            log.warning("%s; the stage is taken over", error.strerror)
            return number, None, True
        if path not in self._seen or self._seen[path][0] != data:
            self._seen[path] = (data, time.monotonic())
        try:
            holder = Holder(**parse_object(data))
            old = datetime.now(UTC) - parse_time(holder.at) > CLOCK_SKEW
            gone = holder.is_gone()
        except Exception:  # another version's, whatever it holds: it may live all the same
            holder, old, gone = Holder("unknown", "unknown", "", 0, ""), False, False
        # Clocks of machines differ, so silence is measured by this process's own; ten minutes they do not differ.
        silent = time.monotonic() - self._seen[path][1] > SILENT_SECONDS
        silent = silent or data.decode(errors="replace") == self._passed_over
        return number, holder, holder.launch == self.launch or gone or silent or old


class Lease:
    """A stage is held until `release`. A thread renews the lease, and looks whether it was taken over and whether the
    launch is to stop. found: the names in the stage's folder when it was taken."""

    def __init__(self, leases: Leases, folder: str, number: int, holder: Holder, found: list[str]) -> None:
        self.leases, self.folder, self.number, self.holder, self.found = leases, folder, number, holder, found
        self.lost = self.stopping = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{folder}", daemon=True)
        self._thread.start()

    def leave(self) -> bool:
        """Whether the work is to be left, with what is done of it saved."""
        return self.lost or self.stopping

    def holds(self, names: Sequence[str] | None = None) -> bool:
        """Whether the stage is still this one's, looked up now: a process that was stopped finds out only here. names:
        those in its folder, where they have just been looked up."""
        if not self.lost:
            store = self.leases.store
            names = store.names(self.folder) if names is None else names
            self.lost = [*numbered(names)][-1:] != [self.number]
            if self.lost:
                log.warning("%s: another launch has taken the stage over", store.location(self.folder))
        return not self.lost

    def release(self) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # it grows old by itself
            self.leases.store.remove(_path(self.folder, self.number))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _keep(self) -> None:
        beats, renewed = 0, time.monotonic()
        while not self._over.wait(LOOK_SECONDS * self.leases.store.slowness) and not self.lost:
            self.stopping = self.stopping or self.leases.stopping()
            if time.monotonic() - renewed < BEAT_SECONDS:
                continue
            beats, renewed = beats + 1, time.monotonic()
            try:
                self._renew(beats)
            except OSError as error:  # the storage may come back before anybody takes the stage for free
                log.warning("%s: its lease could not be renewed: %s", self.folder, one_line(error))

    def _renew(self, beat: int) -> None:
        if self.holds():
            self.leases.store.write(_path(self.folder, self.number), _bytes(replace(self.holder, beat=beat)))


def _path(folder: str, number: int) -> str:
    return f"{folder}/{lease_file(number)}"


def _bytes(holder: Holder) -> bytes:
    return json.dumps(asdict(replace(holder, at=now()))).encode()
