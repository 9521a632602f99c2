"""A notebook with a real kernel, to be run by the environment that has one: a launch in a cell, interrupted in the
middle and gone on with, and a grid that shows itself. Stands alone: it is copied to where the notebook is."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

PASSED = "The notebook did what it should."
STORAGE = "../in-a-notebook"
LAUNCH = f"""
import launch
kept = "kept"
status = launch.main(["--grid", "digits", "--set", "seeds=[0]", "--wandb", "disabled", "--storage", {STORAGE!r}])
"""
STATE = "import logging, signal; print(status, kept, logging.root.level, signal.getsignal(signal.SIGTERM))"
SHOW = f"from analysis import load_grid; grid = load_grid({STORAGE!r}, 'digits'); grid"
LIMIT_SECONDS = 600


def main() -> None:
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel()
    try:
        before = text_of(outputs(client, "status, kept = None, 'kept'\n" + STATE))
        asked = client.execute(LAUNCH)
        wait_for_a_cell()
        manager.interrupt_kernel()
        interrupted = text_of(collected(client, asked))
        assert "Interrupted with" in interrupted, interrupted
        after = text_of(outputs(client, STATE))
        assert after == before.replace("None", "130", 1), (before, after)
        went_on = text_of(outputs(client, LAUNCH))
        assert "Done: " in went_on, went_on
        assert text_of(outputs(client, STATE)) == before.replace("None", "0", 1)
        (shown,) = [one["content"]["data"] for one in outputs(client, SHOW) if one["msg_type"] == "execute_result"]
        assert shown["text/html"].startswith('<div class="kd-grid">'), shown
        assert "teachers and cells done" in shown["text/plain"], shown
        (report,) = [one["content"]["data"] for one in outputs(client, "grid.report()") if "data" in one["content"]]
        assert report["text/html"].startswith("<iframe "), report["text/html"][:100]
        assert manager.is_alive()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    print(PASSED)


def outputs(client: Any, code: str) -> list[dict[str, Any]]:
    return collected(client, client.execute(code))


def collected(client: Any, asked: str) -> list[dict[str, Any]]:
    """What a cell gave until it was done."""
    found = []
    until = time.monotonic() + LIMIT_SECONDS
    while True:
        message = client.get_iopub_msg(timeout=until - time.monotonic())
        if message["parent_header"].get("msg_id") != asked:
            continue
        if message["msg_type"] == "error":
            raise AssertionError("\n".join(message["content"]["traceback"]))
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return found
        found.append(message)


def text_of(messages: list[dict[str, Any]]) -> str:
    return "".join(one["content"]["text"] for one in messages if one["msg_type"] == "stream")


def wait_for_a_cell() -> None:
    until = time.monotonic() + LIMIT_SECONDS
    while not list(Path(STORAGE).glob("cells/*/checkpoint.pt")):
        assert time.monotonic() < until, "no cell has saved anything"
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
