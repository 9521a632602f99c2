"""Who works on a stage: one of several launches, for as long as it lives."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import grid.contract.processes
import grid.store.lease
from grid.store.lease import Holder, Lease, Leases
from grid.store.store import Store

FOLDER = "cells/0123456789abcdef"
# Of a clock ahead of this one, which does not count: what was written long ago would.
AT = (datetime.now(UTC) + timedelta(days=1)).isoformat()
ELSEWHERE = replace(Holder.here("other"), machine="another boot", host="far", at=AT)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid.store.lease, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(grid.store.lease, "BEAT_SECONDS", 0.02)


def put(store: Store, holder: Holder, number: int = 1) -> None:
    store.write(f"{FOLDER}/lease-{number:04d}.json", json.dumps(asdict(holder)).encode())


def take(store: Store, launch: str) -> Lease:
    lease = Leases(store, launch).take(FOLDER)
    assert lease is not None
    return lease


def files(store: Store) -> list[str]:
    """Not those that are being written."""
    return [name for name in store.names(FOLDER) if not name.endswith(".tmp")]


def wait_for(happened: Any) -> None:
    until = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_stage_is_held_by_one_launch_until_it_is_given_back(store: Store) -> None:
    mine, theirs = Leases(store, "mine"), Leases(store, "theirs")
    with take(store, "mine"):
        assert mine.other(FOLDER) is None
        other = theirs.other(FOLDER)
        assert other is not None
        assert (other.launch, other.pid) == ("mine", os.getpid())
        assert theirs.take(FOLDER) is None
    assert theirs.other(FOLDER) is None
    with take(store, "theirs"):
        assert mine.take(FOLDER) is None
    assert files(store) == []


def test_the_tries_of_a_launch_are_counted(store: Store) -> None:
    assert [take(store, "mine").holder.tries for _ in range(3)] == [1, 2, 3]
    with take(store, "mine") as fourth:
        assert fourth.holder.tries == 4
    with take(store, "mine") as after:
        assert after.holder.tries == 1, "given back is not lost"


def test_a_launch_takes_over_from_its_own_lost_worker(store: Store, fast: None) -> None:
    lost = take(store, "mine")
    with take(store, "mine") as again:
        assert files(store) == ["lease-0002.json"]
        wait_for(lambda: lost.lost)
        assert lost.leave()
        lost.release()
        assert files(store) == ["lease-0002.json"], "not its own"
        assert not again.leave()


def test_a_holder_on_this_machine_that_has_ended_is_passed_over(store: Store) -> None:
    ended = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,))
    ended.start()
    holder = replace(Holder.here("other"), pid=ended.pid or 0, born=grid.contract.processes.born(ended.pid or 0))
    put(store, replace(holder, at=datetime.now(UTC).isoformat()))
    ended.join()
    with take(store, "mine"):
        assert files(store) == ["lease-0002.json"]


def test_a_process_that_got_the_number_of_an_ended_one_is_another(store: Store) -> None:
    put(store, replace(Holder.here("other"), born="1", at=datetime.now(UTC).isoformat()))
    take(store, "mine").release()


def test_a_holder_elsewhere_is_passed_over_after_a_minute_of_silence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(grid.store.lease.time, "monotonic", lambda: clock)
    leases = Leases(store, "mine")
    put(store, ELSEWHERE)
    assert leases.other(FOLDER) == ELSEWHERE
    clock += 59
    assert leases.other(FOLDER) == ELSEWHERE
    put(store, replace(ELSEWHERE, beat=1))
    clock += 59
    assert leases.other(FOLDER) == replace(ELSEWHERE, beat=1), "it has been heard of since"
    clock += 2
    assert leases.other(FOLDER) == replace(ELSEWHERE, beat=1), "since this process saw it"
    clock += 59
    assert leases.other(FOLDER) is None


def test_who_listened_a_minute_tells_a_process_that_begins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(grid.store.lease.time, "monotonic", lambda: clock)
    driver = Leases(store, "mine")
    assert driver.silent(FOLDER) is None
    put(store, ELSEWHERE)
    for passed in (0, 59):
        clock += passed
        assert driver.other(FOLDER) == ELSEWHERE
        assert Leases(store, "mine", passed_over=driver.silent(FOLDER)).take(FOLDER) is None
    clock += 2
    assert driver.other(FOLDER) is None
    told = driver.silent(FOLDER)
    put(store, replace(ELSEWHERE, beat=1))
    assert Leases(store, "mine", passed_over=told).take(FOLDER) is None, "it has been heard of since"
    put(store, ELSEWHERE)
    lease = Leases(store, "mine", passed_over=told).take(FOLDER)
    assert lease is not None
    lease.release()


@pytest.mark.parametrize(("minutes", "free"), [(9, False), (11, True)])
def test_a_lease_of_long_ago_is_free_at_once(store: Store, minutes: int, free: bool) -> None:
    put(store, replace(ELSEWHERE, at=(datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()))
    assert (Leases(store, "mine").other(FOLDER) is None) == free


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"who": 1}', b'{"launch": "x"}'])
def test_a_lease_that_cannot_be_read_is_a_strangers(store: Store, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(grid.store.lease.time, "monotonic", lambda: clock)
    store.write(f"{FOLDER}/lease-0003.json", data)
    leases = Leases(store, "mine")
    assert leases.take(FOLDER) is None
    clock += 61
    lease = leases.take(FOLDER)
    assert lease is not None
    assert lease.number == 4
    lease.release()


def test_a_lease_is_renewed_and_its_last_number_counts(store: Store, fast: None) -> None:
    with take(store, "mine") as lease:
        wait_for(lambda: json.loads(store.read(f"{FOLDER}/lease-0001.json"))["beat"] > 1)
        put(store, ELSEWHERE, number=2)
        wait_for(lease.leave)
    assert files(store) == ["lease-0002.json"]


def test_a_storage_that_fails_for_a_while_loses_no_lease(
    store: Store, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with take(store, "mine") as lease:
        failed = []

        def fails(path: str, data: bytes) -> None:
            failed.append(path)
            raise OSError("gone")

        with monkeypatch.context() as patch:
            patch.setattr(store, "write", fails)
            wait_for(lambda: len(failed) > 2)
        assert not lease.leave()
        beat = json.loads(store.read(f"{FOLDER}/lease-0001.json"))["beat"]
        wait_for(lambda: json.loads(store.read(f"{FOLDER}/lease-0001.json"))["beat"] > beat)


def test_a_launch_tells_its_stages_to_stop(store: Store, fast: None) -> None:
    leases, others = (Leases(store, launch, stop=f"grids/tiny/ray/{launch}/stop") for launch in ("mine", "other"))
    with Leases(store, "mine", stop="grids/tiny/ray/mine/stop").take(FOLDER) as lease:  # type: ignore[union-attr]
        assert not lease.leave()
        others.stop()
        assert not leases.stopping()
        leases.stop()
        assert leases.stopping()
        wait_for(lease.leave)


def _race(folder: str, launch: str, start: Any, held: Any) -> None:
    leases = Leases(Store(folder), launch)
    start.wait()
    for _ in range(200):
        lease = leases.take(FOLDER)
        if lease is None:
            continue
        with held.get_lock():
            held.value += 1
            assert held.value == 1, "two hold it"
        with held.get_lock():
            held.value -= 1
        lease.release()


def test_of_launches_that_race_one_holds_it(tmp_path: Path, store: Store) -> None:
    # A lease of one that is gone lies there: all of them see it free.
    put(store, replace(Holder.here("gone"), born="1", at=datetime.now(UTC).isoformat()))
    context = multiprocessing.get_context("spawn")
    start, held = context.Event(), context.Value("i", 0)
    racers = [context.Process(target=_race, args=(str(tmp_path), f"launch-{i}", start, held)) for i in range(3)]
    for racer in racers:
        racer.start()
    start.set()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    assert files(store) == []
