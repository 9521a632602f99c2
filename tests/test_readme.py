"""Each command in README.md's blocks: the programs understand it, what it names exists, and the cheap ones are run."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest

import launch
from analysis import arguments, cli
from grid.read.grid_file import named_grids
from tests.launching import ROOT

RECORDS = ROOT / "tests/analysis/digits_records"
MAIN = {"python launch.py": launch.main, "python -m analysis": cli.main}
PARSER = {"python launch.py": launch.parser, "python -m analysis": arguments.parser}

# What bundling those records prints, as README.md has it: the same bytes everywhere.
BUNDLE = "digits.zip: grid digits, 32 stages, 63 files, 309 KiB, sha256 "
BUNDLE += "37b393ac0160ea47bb300a6eb65e40a4b64c0dd4d4311d88a4c5d62f266e530a"

# Run where runs/ holds the records of a launch of digits: the exit status, and what is printed or the file written.
RUN = {
    "python launch.py --list": (0, "digits "),
    "python launch.py --grid digits --dry-run": (0, "32 stages: 1 data set"),
    "python launch.py --status": (1, "Grid digits in "),  # its weights are not among the records
    "python -m analysis table digits": (0, "### digits"),
    "python -m analysis classes digits": (0, "**Without predictions**: 29 of the 29"),
    "python -m analysis records digits --output all.csv": (0, Path("all.csv")),
    "python -m analysis curves digits --output curves.parquet": (0, Path("curves.parquet")),
    "python -m analysis bundle digits digits.zip": (0, BUNDLE),
}
# Read by their programs' own parsers, and not run here for this reason.
NOT_RUN = {
    "python launch.py --grid digits": "starts a Ray",
    "python launch.py --status digits --watch": "looks until the grid ends",
    "python -m analysis compare cifar10_light": "needs records of that grid",
    "python -m analysis report digits": "test_digits_records.py writes it of these records",
    "python -m analysis plots digits": "test_digits_records.py draws them of these records",
    "python -m analysis table digits cifar10_light": "needs records of both",
    "python -m analysis table --all --storage runs --storage /shared/kd": "needs a second storage",
    "python -m analysis diff before.zip digits --fail-below 1": "needs a bundle of before",
    "python -m analysis table --storage digits.zip": "tests/analysis/write/test_bundle.py reads one of these records",
    "python -m analysis export digits --student ViT-S --to out/vit-s": "test_digits_records.py exports it",
    "python -m analysis wandb digits [--mode offline|online] [--report]": "shows what may be left out",
    "python launch.py --grid digits --address auto --storage /shared/kd": "needs a Ray; `make package` runs it",
}
# Other programs': what they name of this project is looked at.
ELSEWHERE = {
    "make demo": "installs, and trains for minutes",
    "make test": "runs this",
    "pip install -e '.[export]' -c constraints.txt": "installs",
    "pip install -e . -c constraints.txt": "installs",
    "docker build -f docker/Dockerfile -t kd-grid:0.1.0-cpu .": "needs Docker",
    "docker compose -f docker/compose.yaml run --rm launch": "needs Docker; `make package` runs the launch",
    "kubectl apply -f docker/kuberay/shared.yaml -f docker/kuberay/rayjob.yaml": "needs Kubernetes",
    "ray up docker/autoscaler.yaml": "needs AWS",
    "ray job submit --address http://HEAD:8265 --working-dir . -- python launch.py --grid cifar100_full --address auto "
    "--storage s3://bucket/kd": "needs a cluster; `make package` submits it for digits",
}


TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Lines of the indented blocks, continued ones put together and without their comments; not the tree of runs/."""
    blocks = re.findall(r"(?:^ {4}.*\n)+", FENCED.sub("", TEXT), re.MULTILINE)
    lines = "".join(block for block in blocks if block.split()[0] != "runs/").replace("\\\n", "").splitlines()
    return [" ".join(re.sub(r"\s#.*", "", line).split()) for line in lines]


def spelled_out(command: str) -> str:
    """With all that a synopsis says may be left out, and the first of alternatives."""
    return re.sub(r"\[([^]|]+)(?:\|[^]]+)?\]", r"\1", command) if " [" in command else command


def program_and_words(command: str) -> tuple[str, list[str]]:
    (program,) = (name for name in MAIN if command.startswith(f"{name} "))
    return program, shlex.split(command.removeprefix(program))


def test_each_command_has_its_place_here() -> None:
    assert sorted(commands()) == sorted([*RUN, *NOT_RUN, *ELSEWHERE])


def test_blocks_between_fences_hold_no_commands() -> None:
    """But files, Python, and what was printed: commands stand in indented blocks, where they are found above."""
    for language, block in FENCED.findall(TEXT):
        assert language in ("yaml", "python") or block.startswith(("...\n[30/32 ", "Grid digits in ", "$ ")), block


def test_what_bundling_the_demo_prints_is_what_it_prints() -> None:
    assert f"\n{BUNDLE}\n" in TEXT


@pytest.mark.parametrize("command", [*RUN, *NOT_RUN, *(c.partition(" -- ")[2] for c in ELSEWHERE if " -- " in c)])
def test_the_programs_understand_it_and_its_grids_exist(command: str) -> None:
    program, words = program_and_words(spelled_out(command))
    args = PARSER[program]().parse_args(words)
    grids = args.grid if isinstance(args.grid, list) else [args.grid, getattr(args, "status", None)]
    assert {name for name in grids if name and not name.endswith(".zip")} <= set(named_grids())


@pytest.mark.parametrize("command", ELSEWHERE)
def test_what_other_programs_are_told_exists(command: str) -> None:
    words = shlex.split(command.partition(" -- ")[0])
    assert all((ROOT / word).is_file() for word in words if word.endswith((".txt", ".yaml", "Dockerfile")))
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r"\.\[(\w+)\]", command)) <= set(project["optional-dependencies"])
    assert set(re.findall(r"kd-grid:([\d.]+)", command)) <= {project["version"]}


@pytest.mark.parametrize("command", RUN)
def test_it_gives_what_it_is_for(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(RECORDS, tmp_path / "runs", ignore=shutil.ignore_patterns("README.md"))
    monkeypatch.chdir(tmp_path)
    program, words = program_and_words(command)
    status, gives = RUN[command]
    assert MAIN[program](words) == status
    out, err = capsys.readouterr()
    assert gives.stat().st_size > 0 if isinstance(gives, Path) else gives in out, err
