"""A Ray that does not start is one line that names the way out."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from grid.cluster.session import session
from grid.errors import UserError


def test_a_long_path_of_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**settings: Any) -> None:
        raise OSError(
            "validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /scratch/a/long/one"
        )

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match=r"^Ray does not start here: .*/long/one; set RAY_TMPDIR to"):
        session(None, cpus=1).__enter__()
