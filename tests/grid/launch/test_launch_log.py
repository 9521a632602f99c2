"""What libraries print goes to the log, and through the log to no file of the user's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grid.cluster.session import output_to
from grid.errors import UserError

LOG = "grids/tiny/launch.log"


@pytest.mark.usefixtures("capfd")
def test_the_log_grows_with_each_launch(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with output_to(str(tmp_path), LOG):
            os.write(1, f"{text}\n".encode())
            os.write(2, b"and to stderr\n")
    assert (tmp_path / LOG).read_text() == "first\nand to stderr\nsecond\nand to stderr\n"


@pytest.mark.usefixtures("capfd")
@pytest.mark.parametrize("kind", ["a link", "a named pipe", "hard link", "Is a directory"])
def test_what_lies_in_the_logs_place_is_left_as_it_is(tmp_path: Path, kind: str) -> None:
    (tmp_path / "bashrc").write_text("the user's own")
    place = tmp_path / "runs" / LOG
    place.parent.mkdir(parents=True)
    if kind == "a link":
        place.symlink_to(tmp_path / "bashrc")
    elif kind == "a named pipe":
        os.mkfifo(place)
    elif kind == "hard link":
        os.link(tmp_path / "bashrc", place)
    else:
        place.mkdir()
    with pytest.raises(UserError, match=f"^{place}: .*{kind}"), output_to(str(tmp_path / "runs"), LOG):
        os.write(1, b"what Ray says\n")
    assert (tmp_path / "bashrc").read_text() == "the user's own"
