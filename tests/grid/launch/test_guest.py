"""A launch leaves a process that is not its own as it found it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launch
from grid import interruption
from grid.cluster import guest
from grid.cluster.session import output_to, quiet
from grid.contract.credentials import redact_tracebacks
from grid.errors import UserError
from grid.interruption import deaf_to_hangup, on_first_signal
from grid.launch.guest import left_as_found, logged_to_stderr
from grid.private import use_private_compiler_caches
from tests.conftest import tiny_grid
from tests.launching import write_grid


@pytest.fixture(autouse=True)
def hangup_as_in_a_terminal() -> Iterator[None]:
    """Tests may run under nohup too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def state() -> tuple[Any, ...]:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    hooks = (sys.excepthook, threading.excepthook, sys.stdout, sys.stderr)
    return (*handlers, *hooks, logging.root.handlers[:], logging.root.level, dict(os.environ))


@pytest.mark.parametrize("error", [None, UserError("no"), KeyboardInterrupt(), ValueError("a fault")])
def test_a_launch_puts_back_what_it_changed(
    error: BaseException | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed: list[tuple[Any, ...]] = []

    def run_grid(*args: object, **options: object) -> None:
        quiet(None)
        use_private_compiler_caches()
        changed.append(state())
        raise error or UserError("it ends here")

    monkeypatch.setattr("grid.launch.logged.run_grid", run_grid)
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "7")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    before = state()
    argv = ["--grid", write_grid(tmp_path, tiny_grid()), "--storage", str(tmp_path / "runs"), "--wandb", "disabled"]
    if isinstance(error, ValueError):
        with pytest.raises(ValueError, match="a fault"):
            launch.main(argv)
    else:
        assert launch.main(argv) == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert state() == before
    assert all(then != now for then, now in zip(changed[0][1:], before[1:], strict=True)), "all but SIGINT was changed"


def test_a_launch_in_another_thread_touches_no_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "grid.launch.logged.run_grid", lambda *args, **options: (_ for _ in ()).throw(UserError("it ends"))
    )
    argv = ["--grid", write_grid(tmp_path, tiny_grid()), "--storage", str(tmp_path / "runs"), "--wandb", "disabled"]
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(launch.main(argv)))
    thread.start()
    thread.join()
    assert found == [2]


def test_the_commands_own_process_shows_no_credentials_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with left_as_found():
        monkeypatch.setattr(sys, "argv", ["kd-grid", "--list"])
        with pytest.raises(SystemExit) as ended:
            launch.command()
        assert (ended.value.code, sys.excepthook.__module__) == (0, redact_tracebacks.__module__)


@pytest.mark.usefixtures("capfd")
def test_python_prints_and_logs_to_the_log_whatever_stdout_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Notebook:
        """Not on a descriptor, as the streams of a kernel are not."""

        def write(self, text: str) -> None:
            raise AssertionError(f"shown in the notebook: {text}")

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stdout", Notebook())
    monkeypatch.setattr(sys, "stderr", Notebook())
    with output_to(str(tmp_path), "launch.log"), logged_to_stderr():
        print("a library's line \udcff")
        logging.getLogger("some.library").warning("token=%s", "hf_" + "a" * 20)
    text = (tmp_path / "launch.log").read_text()
    assert "a library's line \\udcff\n" in text
    assert text.endswith("some.library WARNING token=***\n")


def test_a_thread_can_have_the_main_thread_leave_at_once() -> None:
    stopped: list[bool] = []
    with on_first_signal(lambda: stopped.append(True)) as leave:
        threading.Timer(0.1, leave).start()
        with pytest.raises(KeyboardInterrupt):
            threading.Event().wait(30)
    leave()
    assert stopped == [], "it is not told to stop first, and nothing comes after the context"


def signalled(number: int) -> None:
    os.kill(os.getpid(), number)
    threading.Event().wait(30)


def test_a_closed_terminal_has_it_stop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shell and the kernel may both send SIGHUP, which is no order to leave at once."""
    stopped = threading.Event()
    with on_first_signal(stopped.set):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stopped.wait(10)
        with pytest.raises(KeyboardInterrupt):
            signalled(signal.SIGTERM)


def test_under_nohup_a_closed_terminal_is_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stopped = threading.Event()
        with on_first_signal(stopped.set):
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopped.wait(0.2)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_does_not_stop_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "STOP_SECONDS", 0.2)
    with on_first_signal(lambda: None), pytest.raises(KeyboardInterrupt):
        signalled(signal.SIGINT)


def test_what_is_started_under_a_deaf_process_is_deaf_too() -> None:
    with deaf_to_hangup():
        ask = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
        said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout
    assert said == "True\n"
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_a_process_joins_one_ray_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    with pytest.raises(UserError, match=r"this process has joined a Ray already: call ray\.shutdown\(\) first"):
        guest.check_free()


@pytest.mark.parametrize("seconds", [0.05, 60.0])
def test_ray_is_left_once_no_thread_is_inside_it(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    shut, over = [], threading.Event()
    monkeypatch.setattr("ray.shutdown", lambda: shut.append(lane.is_alive()))
    monkeypatch.setattr(guest, "LEAVE_SECONDS", 0.5)
    lane = threading.Thread(target=over.wait, args=(seconds,), daemon=True)
    lane.start()
    guest.leave_ray([lane])
    assert shut == ([False] if seconds < 1 else []), "one that is inside is not shut down under it"
    over.set()
