"""No link of a stranger's leads a write away, and nothing that is no file is waited for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from grid.contract.files.local_files import (
    OddFileError,
    create_local,
    make_folder,
    open_to_append,
    read_local,
    remove_local,
    write_local,
)
from grid.contract.files.publishing import publishing

STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a stranger's link")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "runs/grids/tiny").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/keys").write_text("the user's own")
    return tmp_path / "runs"


def stranger(link: Path) -> None:
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)


WRITERS: dict[str, Callable[[str, str], object]] = {
    "write": lambda root, path: write_local(root, path, b"new"),
    "create": lambda root, path: create_local(root, path, b"new"),
    "append": lambda root, path: os.close(open_to_append(root, path)),
    "remove": remove_local,
    "make a folder": make_folder,
}


def test_a_link_in_a_files_place_is_replaced_and_what_it_led_to_is_left(root: Path) -> None:
    (root / "grids/tiny/report.html").symlink_to(root.parent / "home/keys")
    write_local(str(root), "grids/tiny/report.html", b"new")
    assert (root.parent / "home/keys").read_text() == "the user's own"
    assert (root / "grids/tiny/report.html").read_bytes() == b"new"
    assert not (root / "grids/tiny/report.html").is_symlink()


def test_a_link_is_something_that_lies_there_already(root: Path) -> None:
    (root / "lease").symlink_to(root.parent / "home/new")
    assert not create_local(str(root), "lease", b"new")
    assert not (root.parent / "home/new").exists()


@pytest.mark.parametrize("hard", [False, True])
def test_nothing_is_appended_through_a_link(root: Path, hard: bool) -> None:
    log = root / "grids/tiny/launch.log"
    if hard:
        os.link(root.parent / "home/keys", log)
    else:
        log.symlink_to(root.parent / "home/keys")
    with pytest.raises(OddFileError, match="link"):
        open_to_append(str(root), "grids/tiny/launch.log")
    assert (root.parent / "home/keys").read_text() == "the user's own"


def test_a_file_grows(root: Path) -> None:
    for text in (b"one\n", b"two\n"):
        descriptor = open_to_append(str(root), "grids/other/launch.log")
        os.write(descriptor, text)
        os.close(descriptor)
    assert (root / "grids/other/launch.log").read_bytes() == b"one\ntwo\n"


@as_root
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("place", ["grids/tiny", "grids"])
def test_a_strangers_link_to_a_folder_is_not_entered(root: Path, writer: str, place: str) -> None:
    home = root.parent / "home"
    (home / "tiny").mkdir()
    (home / "tiny/keys").write_text("the user's own")
    before = sorted(home.rglob("*"))
    folder = root / place
    folder.rename(root / "away")
    folder.symlink_to(home / "tiny" if place == "grids/tiny" else home)
    stranger(folder)
    with pytest.raises(OddFileError, match=f"{place} is a link that user {STRANGER} made, which is not followed"):
        WRITERS[writer](str(root), "grids/tiny/keys")
    assert sorted(home.rglob("*")) == before
    assert (home / "tiny/keys").read_text() == "the user's own"


def test_a_link_of_ones_own_to_a_folder_is_entered(root: Path) -> None:
    (root / "datasets").symlink_to(root.parent / "home")
    write_local(str(root), "datasets/0123/images.npy", b"new")
    assert (root.parent / "home/0123/images.npy").read_bytes() == b"new"


@as_root
def test_the_root_may_be_anybodys_link(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    stranger(link)
    write_local(str(link), "a/b", b"new")
    assert (root / "a/b").read_bytes() == b"new"


def test_what_is_written_has_the_usual_permissions(root: Path) -> None:
    (root / "plain").write_bytes(b"")
    write_local(str(root), "a", b"new")
    assert (root / "a").stat().st_mode == (root / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["model.pth", "x" * 255, "é" * 127])
def test_what_is_written_by_path_is_seen_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    for content in (b"old", b"new"):
        seen = target.read_bytes() if target.exists() else None
        with publishing(target) as part:
            part.write_bytes(content)
            assert (target.read_bytes() if target.exists() else None) == seen
        assert target.read_bytes() == content
        assert [*tmp_path.iterdir()] == [target]


def test_a_folder_is_filled_before_it_has_its_name(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with publishing(target) as part:
        part.mkdir()
        (part / "a").write_bytes(b"new")
        assert [*target.iterdir()] == []
    assert [*tmp_path.rglob("*")] == [target, target / "a"]


def not_begun(part: Path) -> None:
    pass


def a_full_folder(part: Path) -> None:
    (part / "inner").mkdir(parents=True)
    (part / "inner/a").write_bytes(b"new")


@pytest.mark.parametrize("begin", [not_begun, Path.touch, a_full_folder])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_breaks_off_leaves_only_what_lay_there(
    tmp_path: Path, begin: Callable[[Path], None], error: type[BaseException]
) -> None:
    (tmp_path / "out").write_bytes(b"old")

    def break_off() -> None:
        with publishing(tmp_path / "out") as part:
            begin(part)
            raise error

    with pytest.raises(error):
        break_off()
    assert (tmp_path / "out").read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [tmp_path / "out"]


def test_what_cannot_take_its_place_is_removed(tmp_path: Path) -> None:
    """A folder that holds something is in it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/kept").touch()
    with pytest.raises(OSError, match="out"), publishing(tmp_path / "out") as part:
        part.mkdir()
    assert {*tmp_path.rglob("*")} == {tmp_path / "out", tmp_path / "out/kept"}


def test_a_file_in_a_folders_place_is_an_error(root: Path) -> None:
    (root / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        write_local(str(root), "file/a", b"new")


def test_a_file_is_read_whole_whatever_its_size(root: Path) -> None:
    for size in (0, 1, 2**20, 2**26 + 1):
        (root / "file").write_bytes(bytes(size))
        assert len(read_local(str(root / "file"))) == size
        assert len(read_local(str(root / "file"), limit=size)) == size
    (root / "link").symlink_to(root / "file")
    assert len(read_local(str(root / "link"))) == 2**26 + 1


def test_what_is_larger_than_such_files_are_is_not_read(root: Path) -> None:
    with open(root / "sparse", "wb") as file:
        file.truncate(30 * 2**30)
    with pytest.raises(OddFileError, match="is larger than 1 MiB, which no file of its kind is"):
        read_local(str(root / "sparse"), limit=2**20)
    # The kernel says of these that they are empty.
    with pytest.raises(OddFileError, match="is larger than 0 MiB"):
        read_local("/proc/self/maps", limit=10)


ODD = {
    "a named pipe": os.mkfifo,
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """In a process of its own: without the check it waits for ever, or reads without end."""
    ODD[kind](tmp_path / "odd")
    script = f"from grid.contract.files.local_files import read_local; read_local({str(tmp_path / 'odd')!r}, 2**20)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    last = done.stderr.splitlines()[-1]
    # A socket cannot be opened at all.
    assert last.endswith("No such device or address: " + repr(str(tmp_path / "odd"))) or f"is {kind}, not a" in last
