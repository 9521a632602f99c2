"""A model is rebuilt as it was trained, whatever its weights leave out; one that is not teaches nobody."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from analysis.cli import main
from grid.contract.record import Record
from grid.plan import Plan, make_plan
from grid.read.grid_file import load_grid
from grid.store.plan_file import write_plan
from grid.store.store import Store
from grid.work.dataset import open_prepared, prepare_dataset
from grid.work.execute import Runtime, execute
from grid.work.models import untrained
from grid.work.recheck import RebuiltError, check_accuracy
from grid.work.teacher_logits import LogitsCache
from kd.evaluate import score
from kd.logits import logits_to_bytes
from kd.models.build import build
from tests.conftest import tiny_grid
from tests.grid.running import compute, prepare, train

HEAD = """
import random, time
import numpy as np
import torch
from torch import nn
"""
# Random Fourier features, drawn when the model is made and kept out of its state, as in some papers' code.
FEATURES = """
def features(num_classes):
    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("w", {drawn} * 0.3, persistent=False)
            self.fc = nn.Linear(128, num_classes)
        def forward(self, x):
            z = x.flatten(1) @ self.w
            return self.fc(torch.cat([z.sin(), z.cos()], 1))
    return Features()
"""
DRAWN = {
    "torch": "torch.randn(64, 64)",
    "numpy": "torch.from_numpy(np.random.randn(64, 64)).float()",
    "random": "torch.tensor([[random.gauss(0, 1) for _ in range(64)] for _ in range(64)])",
}
# What is learned outside of the state: no rebuilding brings it back.
FORGETFUL = """
def features(num_classes):
    class Forgetful(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(64), persistent=False)
            self.fc = nn.Linear(64, num_classes)
        def forward(self, x):
            x = x.flatten(1)
            if self.training:
                self.mean += 0.5 * (40 + x.detach().mean(0) - self.mean)
            return self.fc((x + 40 - self.mean) * torch.linspace(1, 9, 64))
    return Forgetful()
"""


def plan_of(folder: Path, code: str, **changes: Any) -> Plan:
    (folder / "my_models.py").write_text(HEAD + code)
    entry = {"factory": f"{folder}/my_models.py:features"}
    grid = {"teachers": [{**entry, "seed": 3}], "students": [entry], "seeds": [5], "name": "own", **changes}
    (folder / "own.yaml").write_text(json.dumps(tiny_grid(**grid)))
    return make_plan(load_grid(str(folder / "own.yaml")))


@pytest.mark.parametrize("drawn", DRAWN)
def test_a_teacher_is_rebuilt_with_what_its_weights_leave_out(tmp_path: Path, runtime: Runtime, drawn: str) -> None:
    plan = plan_of(tmp_path, FEATURES.format(drawn=DRAWN[drawn]))
    store = Store(str(tmp_path / "runs"))
    prepare(plan, store, runtime)
    (teacher,), (stage,) = plan.teachers, plan.logits
    dataset = open_prepared(plan.data, store)
    stored = safetensors.torch.load(store.read(f"{stage.folder}/test.safetensors"))
    found = score(next(iter(stored.values())), dataset.test.labels_N).top1
    assert found == store.record(teacher).test_top1_last
    first, again = (untrained(teacher.model, dataset.meta, seed=3).get_buffer("w") for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, untrained(teacher.model, dataset.meta, seed=0).get_buffer("w"))


def test_a_student_is_published_with_what_its_weights_leave_out(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grid.publish.folder.missing_packages", lambda: ["onnx"])
    plan = plan_of(tmp_path, FEATURES.format(drawn=DRAWN["torch"]), teachers=[], modes=["baseline"])
    store = Store(str(tmp_path / "runs"))
    prepare(plan, store, runtime)
    (cell,) = plan.cells
    assert train(cell, store, runtime) is None
    write_plan(plan, store)
    to = tmp_path / "out"
    arguments = ["export", "own", "--storage", store.url, "--student", "features", "--mode", "baseline"]
    assert main([*arguments, "--to", str(to), "--trust-code"]) == 0
    drawn = untrained(cell.model, open_prepared(plan.data, store).meta, seed=5).get_buffer("w")
    assert torch.equal(safetensors.torch.load_file(to / "buffers.safetensors")["w"], drawn)
    card = (to / "README.md").read_text(encoding="utf-8")
    code = card.partition("With torch")[2].partition("```python\n")[2].partition("# image: a PIL picture")[0]
    monkeypatch.chdir(to)
    monkeypatch.syspath_prepend(str(to))
    found: dict[str, Any] = {}
    exec(code, found)
    assert torch.equal(found["model"].get_buffer("w"), drawn)


def test_code_that_draws_otherwise_each_time_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    drawn = "torch.randn(64, 64, generator=torch.Generator().manual_seed(time.time_ns()))"
    plan = plan_of(tmp_path, FEATURES.format(drawn=drawn), teachers=[], modes=["baseline"])
    store = Store(str(tmp_path / "runs"))
    prepare(plan, store, runtime)
    error = train(plan.cells[0], store, runtime)
    assert error is not None
    assert "gives other values of w each time it is called: draw them with torch, NumPy or random" in error


def test_what_a_model_draws_leaves_other_draws_alone() -> None:
    def factory(num_classes: int) -> torch.nn.Module:
        np.random.seed(1)
        random.seed(1)
        return torch.nn.Linear(4, num_classes)

    before = random.getstate(), np.random.get_state()[1].tolist()
    build("mine", args={}, classes=2, channels=1, factory=factory)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_a_teacher_that_learned_outside_of_its_weights_teaches_nobody(tmp_path: Path, runtime: Runtime) -> None:
    plan = plan_of(tmp_path, FORGETFUL)
    store = Store(str(tmp_path / "runs"))
    assert execute(plan.data, store, runtime, lambda: prepare_dataset(plan.data, store, runtime)) is None
    assert train(plan.teachers[0], store, runtime) is None
    error = compute(plan.logits[0], store, runtime)
    assert error is not None
    assert error.startswith("RebuiltError: teacher features, rebuilt from its weights, has ")
    assert "a buffer that is not persistent" in error
    assert not store.exists(f"{plan.logits[0].folder}/test.safetensors")


def test_a_student_that_learned_outside_of_its_weights_is_not_published(
    tmp_path: Path, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(tmp_path, FORGETFUL, teachers=[], modes=["baseline"])
    store = Store(str(tmp_path / "runs"))
    prepare(plan, store, runtime)
    assert train(plan.cells[0], store, runtime) is None
    write_plan(plan, store)
    to = tmp_path / "out"
    arguments = ["export", "own", "--storage", store.url, "--student", "features", "--mode", "baseline"]
    assert main([*arguments, "--to", str(to), "--trust-code"]) == 2
    assert "features, rebuilt from its weights, has " in capsys.readouterr().err
    assert not to.exists()


def test_a_cache_of_another_teacher_is_refused_where_it_is_read(tmp_path: Path, runtime: Runtime) -> None:
    """As one left by a program that rebuilt its teacher wrongly."""
    plan = plan_of(tmp_path, FEATURES.format(drawn=DRAWN["torch"]))
    store = Store(str(tmp_path / "runs"))
    prepare(plan, store, runtime)
    (stage,) = plan.logits
    cache = LogitsCache(stage, store, open_prepared(plan.data, store), torch.device("cpu"))
    wrong = replace(cache.plain("test"), values=cache.plain("test").values.flip(0))
    store.write(f"{stage.folder}/test.safetensors", logits_to_bytes(wrong, fingerprint=cache.fingerprint))
    error = train(next(cell for cell in plan.cells if cell.mode == "distilled"), store, runtime)
    assert error is not None
    assert f"{store.location(stage.folder)}: the teacher whose logits these are has " in error
    assert error.endswith("to have both computed again")


@pytest.mark.parametrize(
    ("off", "exact", "refused"),
    [(0, True, False), (1, True, True), (1, False, False), (5, False, False), (6, False, True)],
)
def test_how_far_a_rebuilt_model_may_be_off(off: int, exact: bool, refused: bool) -> None:
    """Of 1,000 images: none where it was measured, 0.5 % elsewhere."""
    labels = torch.zeros(1000, dtype=torch.int64)
    logits = torch.zeros(1000, 2)
    logits[:, 0], logits[: 200 + off, 1] = 1.0, 2.0
    record = Record(test_top1_last=0.8, device="a CPU", deterministic=True)
    here: dict[str, Any] = {"device": "a CPU" if exact else "a GPU", "deterministic": True}
    told: dict[str, Any] = {"split": "test", "record": record, "here": here, "what": "it", "way_out": "mend it"}
    if not refused:
        check_accuracy(logits, labels, **told)
        return
    with pytest.raises(
        RebuiltError, match=r"^it has 79.[0-9]+% on the test split, and 80.00% on its record: .*; mend it$"
    ):
        check_accuracy(logits, labels, **told)
