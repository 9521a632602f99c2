"""The token that Ray asks for. Ray's servers listen on all interfaces, and whoever may talk to them may run code."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from grid.cluster.ray_internals import core
from grid.errors import UserError

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
WAY_OUT = f"if it asks for a token, set {MODE}=token and {TOKEN} (or {TOKEN_FILE}) to the one it was started with"


def ask_for() -> None:
    """Have the Ray that is started here ask for a token, known to this process and to those that it starts: never in a
    file, which may be read, nor on a command line. One that the user has set (to log in to the dashboard) is kept."""
    os.environ[MODE] = "token"
    if not is_given():
        os.environ[TOKEN] = secrets.token_hex(32)
    read_again()


def is_given() -> bool:
    return bool(os.environ.get(TOKEN))


def login(*, was_given: bool, on_terminal: bool) -> str:
    """What a person is told who wants to log in to the dashboard. The token is shown on a terminal alone: what is piped
    may end in a file."""
    if was_given:
        return f"It asks for the token in {TOKEN}"
    if on_terminal:
        return f"It asks for a token, which for this launch is {os.environ[TOKEN]}"
    return f"It asks for a token: to log in there, set {TOKEN} to one of yours before the launch"


def check_file() -> None:
    """Of a Ray that is joined. Raises UserError for a token that others on this machine can read."""
    if is_given() or os.environ.get(MODE, "").lower() == "disabled":
        return
    given = os.environ.get(TOKEN_FILE)
    path = Path(given) if given else Path("~/.ray/auth_token").expanduser()
    if others_can_read(path):
        raise UserError(
            f"Ray's token {path} can be read by others on this machine, who may run code as you with it: chmod 600 it, "
            "and if they may have read it, give the cluster another one"
        )


def others_can_read(path: Path) -> bool:
    """Whether a file is there, open to other users, and no folder above it is closed to them."""
    try:
        real = path.resolve(strict=True)
        return bool(real.stat().st_mode & 0o044) and all(above.stat().st_mode & 0o011 for above in real.parents)
    except OSError:
        return False


def read_again() -> None:
    """Ray reads its settings once, when it is imported."""
    if "ray" in sys.modules:
        core.read_settings_again()
