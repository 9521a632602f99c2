"""A Ray that is lost is noticed: the process that runs it on this machine, and its head. Both are played here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from grid.cluster import pulse
from grid.cluster.pulse import Pulse, watched

LISTEN = """
import socket, sys, time
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("ready", flush=True)
time.sleep(600)
"""


class Played:
    """What a launch sees of a Ray."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.head = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.head.getsockname()[1]}"
        path = str(folder / "raylet")
        self.raylet = subprocess.Popen([sys.executable, "-c", LISTEN, path], stdout=subprocess.PIPE, text=True)
        assert self.raylet.stdout is not None
        assert self.raylet.stdout.readline() == "ready\n"
        monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=self.address))
        monkeypatch.setattr(ray._private.worker, "_global_node", SimpleNamespace(raylet_socket_name=path))

    def close(self) -> None:
        self.head.close()
        self.raylet.kill()
        self.raylet.communicate()


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    monkeypatch.setattr(pulse, "LOOK_SECONDS", 0.01)
    played = Played(tmp_path, monkeypatch)
    yield played
    played.close()


def test_there_is_no_loss_while_both_are_there(played: Played) -> None:
    one = Pulse(patience=0)
    assert [one.loss() for _ in range(3)] == [None, None, None]


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="this system does not say who listens at a socket")
def test_the_ray_of_this_machine_has_ended(played: Played) -> None:
    one = Pulse()
    played.raylet.kill()
    os.waitid(os.P_PID, played.raylet.pid, os.WEXITED | os.WNOWAIT)  # what is left of it still has its number
    assert one.loss() == f"the Ray of this machine has ended (process {played.raylet.pid})"


def test_a_silent_head_is_waited_for(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(pulse.time, "monotonic", lambda: clock)
    here, joined = Pulse(patience=0), Pulse(patience=45)
    clock += 100
    assert joined.loss() is None
    played.head.close()
    assert here.loss() == f"Ray's head at {played.address} does not answer"
    clock += 44
    assert joined.loss() is None
    clock += 1
    assert joined.loss() == here.loss()


def test_a_head_that_was_started_again_is_none_the_worse(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(pulse.time, "monotonic", lambda: clock)
    joined = Pulse(patience=45)
    played.head.close()
    clock += 30
    assert joined.loss() is None
    host, _, port = played.address.partition(":")
    played.head = socket.create_server((host, int(port)))
    assert joined.loss() is None
    played.head.close()
    clock += 30
    assert joined.loss() is None, "counted from when it was last heard of"


def test_a_loss_is_told_while_the_launch_waits(played: Played) -> None:
    told, reasons = threading.Event(), []

    def on_loss(reason: str) -> None:
        reasons.append(reason)
        told.set()

    with watched(Pulse(patience=0), on_loss):
        assert not told.wait(0.1)
        played.head.close()
        assert told.wait(30)
    assert reasons[0] == f"Ray's head at {played.address} does not answer"


def test_an_error_that_comes_of_the_loss_is_told_as_the_loss(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "LOOK_SECONDS", 600)
    reasons: list[str] = []
    with pytest.raises(RuntimeError), watched(Pulse(patience=0), reasons.append):
        raise RuntimeError("of something else")
    assert reasons == []
    one = Pulse(patience=0)
    played.head.close()
    with pytest.raises(RuntimeError), watched(one, reasons.append):
        raise RuntimeError("the channel is closed")
    assert reasons == [f"Ray's head at {played.address} does not answer"]


def test_nothing_is_told_once_the_launch_is_over(played: Played) -> None:
    reasons: list[str] = []
    with watched(Pulse(patience=0), reasons.append):
        pass
    played.head.close()
    assert not threading.Event().wait(0.1)
    assert reasons == []
