"""What a grid file stands for is bounded, whoever wrote it: every attack is a line, and its harmless sister is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

import grid.read.parse
from grid.errors import UserError
from grid.read.grid_file import load_grid, read_grid
from grid.read.parse import MAX_DEPTH, parse_json, parse_yaml


def aliases(levels: int, *, merge: bool = False) -> str:
    """Nine times what the line before has, a line after the other."""
    lines = ["a0: &a0 {k: v}" if merge else "a0: &a0 [x]"]
    for level in range(1, levels + 1):
        items = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} " + (f"{{<<: [{items}]}}" if merge else f"[{items}]"))
    return "\n".join(lines)


def refused(text: str, *, parse: Any = parse_yaml) -> str:
    with pytest.raises(UserError) as caught:
        parse(text, what="grid file x")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("merge", [False, True])
def test_aliases_that_stand_for_billions_of_values_are_counted_before_they_are_built(merge: bool) -> None:
    assert "line 7, column" in refused(aliases(10, merge=merge))
    assert "more than 500,000 values, aliases (*) written out" in refused(aliases(10, merge=merge))
    few = parse_yaml(aliases(2, merge=merge), what="x")
    assert few["a2"] == ({"k": "v"} if merge else [[["x"]] * 9] * 9)


def test_aliases_are_counted_in_an_override_too() -> None:
    with pytest.raises(UserError, match=r"--set description=.*more than 500,000 values"):
        load_grid("digits", ["description={" + ", ".join(aliases(10).splitlines()) + "}"])


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: &x {b: [*x]}"])
def test_an_alias_of_what_it_is_part_of_is_refused(text: str) -> None:
    assert "*x is part of what it stands for" in refused(text)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}")])
def test_what_lies_too_deep_is_refused_and_the_deepest_that_may_be_is_read(opening: str, closing: str) -> None:
    for parse in (parse_yaml, parse_json):
        deep = f"{opening * MAX_DEPTH}1{closing * MAX_DEPTH}"
        assert json.dumps(parse(deep, what="x")) == deep
        for levels in (MAX_DEPTH + 1, 5_000):
            text = refused(f"{opening * levels}1{closing * levels}", parse=parse)
            assert f"more than {MAX_DEPTH} levels within each other" in text


def test_a_key_of_many_levels_is_refused() -> None:
    with pytest.raises(UserError, match="a key of 5001 levels"):
        load_grid("digits", [".".join(["a"] * 5001) + "=1"])


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "0x" + "f" * 5000, ":".join(["1"] * 999), str(2**63)])
def test_whole_numbers_that_nothing_can_be_are_refused_at_their_place(number: str) -> None:
    assert "line 1, column 4" in refused(f"a: {number}")
    assert "is too large: they go up to 2^63 - 1" in refused(f"a: {number}")
    assert parse_yaml(f"a: {2**63 - 1}", what="x") == {"a": 2**63 - 1}


def test_json_is_bounded_as_yaml_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is too large: they go up to 2^63 - 1" in refused('{"a": ' + "9" * 5000 + "}", parse=parse_json)
    assert "key 'a' is given twice" in refused('{"a": 1, "b": {"a": 1, "c": 2, "a": 1}}', parse=parse_json)
    monkeypatch.setattr(grid.read.parse, "MAX_VALUES", 5)
    assert "more than 5 values" in refused('{"a": [1, 2, 3, 4]}', parse=parse_json)
    assert parse_json('{"a": [1, 2, 3]}', what="x") == {"a": [1, 2, 3]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 2024-02-31", "timestamp '2024-02-31' is no such value: day is out of range"),
        ("a: !!int x", "int 'x' is no such value"),
        ("a: !!timestamp x", "timestamp 'x' is no such value"),
        ("a: !!bool x", "bool 'x' is no such value"),
        ("a: " + ":".join(["1"] * 200) + ".5", "float is no such value"),
        ("? [a]\n: 1", "the key here is not text (list)"),
        ("yes: 1", "the key yes is not text (bool): put it in quotes"),
        ("2024-01-01: 1", "the key 2024-01-01 is not text (date): put it in quotes"),
        ("a: \x1b", "control characters are not allowed"),
        ("a: \ud800", "not text in UTF-8"),
        ("a:\n\tb: 1", "line 2, column 1: malformed YAML: found '\\t' that cannot start any token"),
    ],
)
def test_values_that_are_not_what_they_look_like_are_a_line(text: str, words: str) -> None:
    assert words in refused(text)


def test_libyaml_reads_as_the_loader_in_python_does() -> None:
    assert issubclass(grid.read.parse._Loader, yaml.CSafeLoader)
    text = "a: [1e-3, 1.0e-3, 010, 0x10, 1_000, yes, ~, .inf, '1e-3', 2024-01-01, !!set {b}, \"\\u00e9\"]\nb: |\n  x\n"
    read, python = parse_yaml(text, what="x"), yaml.load(text, Loader=yaml.SafeLoader)
    assert read.pop("a") == [0.001, *python.pop("a")[1:]]
    assert read == python


def test_what_is_no_file_is_said_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a named pipe"), ("device", "a device")):
        with pytest.raises(UserError, match=rf"{name}\.yaml: is {kind}, not a regular file"):
            load_grid(str(tmp_path / f"{name}.yaml"))
    with pytest.raises(UserError, match=r"folder.yaml: cannot be read: .*Is a directory"):
        load_grid(str(tmp_path / "folder.yaml"))
    with pytest.raises(UserError, match="not a regular file"):
        load_grid("/dev/zero")
    with pytest.raises(UserError, match="no such file"):
        load_grid(f"{'x' * 300}.yaml")


def test_a_file_that_is_too_large_is_refused_with_its_size(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_text("description: x\n")
    assert read_grid(file)["description"] == "x"
    with file.open("ab") as opened:
        opened.truncate(10 * 2**20 + 1)  # sparse: nothing of it is on the disk
    with pytest.raises(UserError, match=r"large.yaml: is larger than 10 MiB, which no file of its kind is"):
        read_grid(file)
