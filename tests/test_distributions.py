"""The wheel and the source distribution as they are built, from a checkout in which other things lie about too."""

from __future__ import annotations

import re
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from tests.building import built, copied
from tests.docker_files import PROJECT, ROOT

PACKAGES = ("analysis", "grid", "kd")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, with packages of the user's own beside it whose names begin like ours."""
    folder = copied(tmp_path_factory.mktemp("checkout") / "project")
    for name in ("grid_old", "kd2", "analysis_notes"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
    return folder


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    archive = built("sdist", checkout, folder)
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Made from the source distribution, as an index's users may do it."""
    return zipfile.ZipFile(built("wheel", sdist, tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def files_of(root: Path, part: str) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for path in (root / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_our_packages_whole_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == {"launch.py"}.union(*(files_of(ROOT, part) for part in PACKAGES))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_gives_our_types_to_type_checkers(wheel: zipfile.ZipFile, package: str) -> None:
    assert f"{package}/py.typed" in wheel.namelist()


@pytest.mark.parametrize("part", ["tests", "docs", "docker", *PACKAGES])
def test_the_source_distribution_holds_what_its_tests_and_pages_refer_to(sdist: Path, part: str) -> None:
    assert files_of(sdist, part) == files_of(ROOT, part)


def test_the_source_distribution_holds_what_make_and_the_tests_read(sdist: Path) -> None:
    for name in ("Makefile", "constraints.txt", "README.md", "CONTRIBUTING.md", ".dockerignore", "LICENSE"):
        assert (sdist / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_an_indexs_page_links_to_nothing_that_is_not_there(metadata: Message) -> None:
    """README.md refers to files and to make; nothing of that is where the package is shown and installed from."""
    page = str(metadata.get_payload())
    assert "pip install kd-grid" in page
    targets = re.findall(r"\]\(([^)]*)\)|(?:src|href)=\"([^\"]*)\"", page)
    assert all(target.startswith("https://") for pair in targets for target in pair if target)
    assert not re.search(r"\bmake \w+|launch\.py|-c constraints\.txt|pip install -e", page)


def test_the_metadata_names_every_python_that_is_meant(metadata: Message) -> None:
    said = metadata.get_all("Classifier") or []
    versions = [text.rpartition(" :: ")[2] for text in said if re.search(r":: 3\.\d+$", text)]
    assert metadata["Requires-Python"] == f">={versions[0]}"
    assert metadata["Keywords"]


def test_an_indexs_page_names_every_extra_that_users_may_want(metadata: Message) -> None:
    page = str(metadata.get_payload())
    for extra in PROJECT["project"]["optional-dependencies"]:
        assert f"[{extra}]" in page or extra == "dev"
