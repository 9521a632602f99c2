"""Which Ray an address means, and whether anything answers there, before Ray itself looks for it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from grid.errors import UserError
from grid.private import is_of_a_launch

CONNECT_SECONDS = 10.0

AUTO = "auto"


def address_meant(address: str) -> str:
    """The address of --address: for `auto`, where RAY_ADDRESS names none, of the one Ray on this machine that is not a
    launch's own. Raises UserError where there is none, or several, or nothing answers."""
    if address == AUTO and not os.environ.get("RAY_ADDRESS"):
        return _the_one_here()
    _check_reachable(address)
    return address


def _the_one_here() -> str:
    """`auto` itself where no Ray is seen here: Ray says why it finds none."""
    rays = rays_here()
    joinable = sorted({gcs for gcs, folder in rays if not is_of_a_launch(folder)})
    if not rays:
        return AUTO
    if not joinable:
        raise UserError(
            "--address auto: the only Ray on this machine is another launch's own, and ends with it: start one with "
            "`ray start --head`, or leave --address out"
        )
    if len(joinable) > 1:
        raise UserError(f"--address auto: several Rays run on this machine: name one of {', '.join(joinable)}")
    return joinable[0]


def rays_here(processes: Path = Path("/proc")) -> list[tuple[str, Path]]:
    """The address of each Ray that has a node on this machine, and the folder that its sessions lie in."""
    found = []
    for place in processes.glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode("utf-8", "surrogateescape").split("\0")
        except OSError:  # it has ended, or is somebody else's
            continue
        options = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
        if Path(words[0]).name == "raylet" and {"gcs-address", "raylet_socket_name"} <= options.keys():
            session = Path(options["raylet_socket_name"]).parents[1]
            found.append((options["gcs-address"], session.parent))
    return found


def _check_reachable(address: str) -> None:
    """Ray would try for minutes to reach a machine that does not answer."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # a name that Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--address {address}: nothing answers there: {reason}") from None
