"""Two launches of one grid over one storage share its work: each stage is computed once."""

from __future__ import annotations

import re
from pathlib import Path

from analysis.load import load_grid
from tests.conftest import tiny_grid
from tests.launching import Launch, records, write_grid


def test_two_launches_share_the_work(tmp_path: Path) -> None:
    recipe = {"epochs": 12, "batch_size": 5, "views": {"crop_padding": 1}, "evaluate_every": 12}
    path = write_grid(tmp_path, tiny_grid(recipe=recipe, name="shared"))
    storage = tmp_path / "runs"
    common = ("--grid", path, "--wandb", "disabled", "--cpus", "2")
    launches = [Launch(*common, "--storage", str(storage), folder=tmp_path / str(i)) for i in range(2)]
    assert [launch.finish(500) for launch in launches] == [0, 0], "\n".join(launch.text() for launch in launches)

    total = len(load_grid(str(storage), "shared").stages)
    counts = [re.search(r"^Done: (\d+) stages computed, (\d+) reused\.$", x.out.read_text(), re.M) for x in launches]
    computed = [int(found[1]) for found in counts if found]
    assert len(computed) == 2, "\n".join(launch.text() for launch in launches)
    assert sum(computed) == total, "a stage was computed twice, or by nobody"
    assert min(computed) > 0, "one of them did it all"
    assert len(records(storage)) == total
    assert not list(storage.glob("*/*/lease-*.json"))
