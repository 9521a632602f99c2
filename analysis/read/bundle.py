"""A bundle: what the analysis reads of one grid as one zip file, which is read as a storage is, and never unpacked.

Beside the files, by their paths on a storage, it holds MANIFEST, which names each of them with its sha256:
{"schema_version": 1, "grid": "digits", "files": {"grids/digits/plan.json": "0123...", ...}}.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from typing import IO, Any

from analysis.read.places import Place
from grid.contract.files.limits import LARGE, size_limit
from grid.contract.files.local_files import too_large
from grid.contract.parsing import parse_object
from grid.contract.program.installed import analysis_command

MANIFEST = "bundle.json"
BUNDLE_VERSION = 1
ENDING = ".zip"
LARGEST_DOWNLOAD = 2**30  # bytes: a bundle by URL is held in memory

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ENCRYPTED = 1  # of a zip's flags
_AGAIN = "copy it again, or bundle the grid again"


class BundleError(ValueError):
    """What is wrong with a bundle, or with a file in it."""


def file_limit(path: str) -> int:
    """The most bytes of a file in a bundle: as on a storage, and never without a limit."""
    return LARGE if path == MANIFEST else size_limit(path) or LARGE


def is_inside(path: str) -> bool:
    """Whether a bundle can hold a file of this path: one that leads nowhere else on any system."""
    return not {"", ".", ".."} & {*path.split("/")} and "\\" not in path and "\0" not in path


class Bundle(Place):
    """The files of a bundle. What its manifest says is compared with what there is at once, and with a file's bytes
    when these are read.

    Raises BundleError for what is no bundle, or another than its manifest says; so does `read`, for damaged bytes.
    """

    def __init__(self, file: str | IO[bytes]) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise BundleError(f"no bundle: {_said(error)}; {_made_by()}") from None
        self._members = _members(self._zip)
        self._sums = self._manifest()
        self._folders: dict[str, set[str]] = defaultdict(set)
        for path in self._sums:
            folder, _, name = path.rpartition("/")
            while name:
                self._folders[folder].add(name)
                folder, _, name = folder.rpartition("/")

    def read(self, path: str) -> bytes:
        if path not in self._sums:
            raise FileNotFoundError(path)
        data = self._bytes(path)
        if hashlib.sha256(data).hexdigest() != self._sums[path]:
            raise BundleError(f"damaged: not the bytes that the bundle's manifest names; {_AGAIN}")
        return data

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes | Exception]:
        found: dict[str, bytes | Exception] = {}
        for path in paths:
            if path in self._sums:
                try:
                    found[path] = self.read(path)
                except BundleError as error:  # the others are read
                    found[path] = error
        return found

    def names(self, folder: str) -> list[str]:
        return sorted(self._folders.get(folder, ()))

    def _manifest(self) -> dict[str, str]:
        """The sha256 of each file by its path."""
        if MANIFEST not in self._members:
            raise BundleError(f"no bundle but another zip file: it has no {MANIFEST}; {_made_by()}")
        try:
            manifest = parse_object(self._bytes(MANIFEST))
        except BundleError as error:
            raise BundleError(f"{MANIFEST}: {error}") from None
        except ValueError as error:
            raise BundleError(f"{MANIFEST}: no manifest: {error}; {_AGAIN}") from None
        version, files = manifest.get("schema_version"), manifest.get("files")
        if type(version) is not int or not isinstance(files, dict) or not all(map(_is_sha256, files.values())):
            raise BundleError(f"{MANIFEST}: no manifest of a bundle; {_AGAIN}")
        if version > BUNDLE_VERSION:
            raise BundleError(f"a bundle of version {version}, newer than this program: update it")
        there = self._members.keys() - {MANIFEST}
        for paths, what in ((files.keys() - there, "lacks"), (there - files.keys(), "holds, against its manifest,")):
            if paths:
                more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
                raise BundleError(f"the bundle {what} {min(paths)}{more}; {_AGAIN}")
        return files

    def _bytes(self, path: str) -> bytes:
        member = self._members[path]
        try:
            with self._zip.open(member) as opened:
                data = opened.read(member.file_size + 1)
        except Exception as error:  # zipfile and zlib have many for damaged bytes
            raise BundleError(f"damaged: {_said(error)}; {_AGAIN}") from None
        if len(data) != member.file_size:
            raise BundleError(f"damaged: {len(data):,} bytes of {member.file_size:,}; {_AGAIN}")
        return data


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The zip's files by path. Raises BundleError for one that no bundle holds."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        path = member.orig_filename
        if not is_inside(path):
            raise BundleError(f"{path!r} is no path inside of a bundle; nothing of it is read")
        if path in members:
            raise BundleError(f"{path} is in it twice; nothing of it is read")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & _ENCRYPTED:
            raise BundleError(f"{path} is encrypted, or compressed in a way that no bundle is; nothing of it is read")
        if member.file_size > file_limit(path):
            raise BundleError(f"{path} {too_large(file_limit(path)).strerror}; nothing of it is read")
        members[path] = member
    return members


def _made_by() -> str:
    return f"{analysis_command()} bundle GRID FILE{ENDING} makes one"


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
