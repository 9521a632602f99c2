"""Weights a user gives: to start from, or a teacher as it is."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from grid.contract.record import curve_file
from grid.errors import UserError
from grid.plan import Plan, make_plan
from grid.private import downloads_folder
from grid.read.grid_file import load_grid
from grid.store.store import Store
from grid.watch.preview import inspect_models, stage_costs
from grid.work.dataset import opened, prepare_dataset
from grid.work.execute import Runtime, execute
from grid.work.models import pixels_of, provide_weights
from grid.work.training import _doubt
from kd.data.dataset import Dataset, DatasetMeta, Split, open_dataset
from kd.evaluate import predict
from kd.models.build import build
from tests.conftest import RESNET, tiny_grid
from tests.grid.running import cell_of, predictions, prepare, train, weights
from tests.kd.helpers import CPU

TEACHER = {"label": "Given-T", "name": "resnet18", "args": {**RESNET, "channels": [8, 8, 16, 16]}}
STUDENT = {"label": "ResNet-S", "name": "resnet18", "args": RESNET}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def write_weights(entry: dict[str, Any], path: Path, *, classes: int = 10, seed: int = 7) -> dict[str, torch.Tensor]:
    model = build(entry["name"], args=entry["args"], classes=classes, channels=1, seed=seed)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": state}, path)
    return state


def plan_of(here: Path, **changes: Any) -> Plan:
    grid = {"teachers": [TEACHER], "students": [STUDENT], "seeds": [0], **changes}
    (here / "grid.yaml").write_text(json.dumps(tiny_grid(**grid)))
    return make_plan(load_grid("grid.yaml"))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["teacher.pth", "teacher.safetensors"])
def test_a_given_teacher_is_used_as_it_is(here: Path, name: str, runtime: Runtime) -> None:
    given = write_weights(TEACHER, here / name)
    plan = plan_of(here, teachers=[{**TEACHER, "checkpoint": name}])
    store = Store(str(here / "runs"))
    provide_weights(plan, set(), store)
    (here / name).unlink()  # workers have it from the storage
    prepare(plan, store, runtime)
    (teacher,) = plan.teachers
    assert same(weights(store, teacher), given)
    record = store.record(teacher)
    assert (record.epochs, record.seconds_train, record.train_loss_last) == (0, 0.0, None)
    assert record.teacher == "resnet18"
    assert record.start == f"given:{teacher.model.checkpoint_sha256}"
    assert record.best_test_top1 == record.test_top1_last
    assert curve_file(record) in store.names(teacher.folder)
    labels_N = opened(plan.data, store, runtime).test.labels_N
    hits = int((predictions(store, teacher)["test"].argmax(dim=1) == labels_N).sum())
    assert hits / len(labels_N) == record.test_top1_last
    distilled = cell_of(plan, "distilled")
    assert train(distilled, store, runtime) is None
    assert store.record(distilled).teacher_sha256 == record.weights_sha256
    assert plan.titles()[teacher.id] == "teacher Given-T (given)"


def test_a_given_teacher_whose_classes_stand_in_another_order_is_told_with_the_remedy(
    here: Path, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    """A trained teacher, whose classifier then has its rows in the order of another sort."""
    trained = plan_of(here, recipe={"epochs": 12, "batch_size": 10, "learning_rate": 1e-2})
    store = Store(str(here / "runs"))
    assert execute(trained.data, store, runtime, lambda: prepare_dataset(trained.data, store, runtime)) is None
    assert train(trained.teachers[0], store, runtime) is None
    top1 = store.record(trained.teachers[0]).val_top1_last
    assert isinstance(top1, float)
    assert top1 > 0.5
    state = weights(store, trained.teachers[0])
    for name, order in (("right.pth", [*range(10)]), ("wrong.pth", [1, 2, 3, 4, 5, 6, 7, 8, 9, 0])):
        torch.save({**state, "fc.weight": state["fc.weight"][order], "fc.bias": state["fc.bias"][order]}, here / name)
        plan = plan_of(here, teachers=[{**TEACHER, "checkpoint": name}])
        provide_weights(plan, set(), store)
        caplog.clear()
        assert train(plan.teachers[0], store, runtime) is None
        warning = store.record(plan.teachers[0]).warning
        if name == "right.pth":
            assert (warning, caplog.text) == (None, "")
            continue
        assert isinstance(warning, str)
        assert " would be " in warning
        assert (
            "if its classes stood in another order, on 120 images of val and test: reorder the rows of its c" in warning
        )
        assert warning in caplog.text
        assert store.record(plan.teachers[0]).val_top1_last < 0.2  # type: ignore[operator]


def test_the_remedy_is_the_one_that_the_data_set_has(here: Path) -> None:
    write_weights(TEACHER, here / "t.pth")
    plan = plan_of(here, teachers=[{**TEACHER, "checkpoint": "t.pth"}])
    own = plan.teachers[0].data.dataset.model_copy(update={"folder": "/data/pets"})
    data = plan.teachers[0].data.model_copy(update={"dataset": own})
    labels_N = torch.arange(10).repeat(10)
    split = Split(torch.zeros(100, 1, 1, 1, dtype=torch.uint8), labels_N)
    dataset = Dataset(DatasetMeta("pets", 10, 1, (0.0,), (1.0,), ""), train=split, val=split, test=split)
    stage = plan.teachers[0].model_copy(update={"data": data})
    told = _doubt(stage, dataset, {"test": (labels_N + 1) % 10})
    assert told == (
        "its top-1 is 0.00 %, and would be 100.00 % if its classes stood in another order, on 100 images of test: "
        "give the order that it was trained with as dataset.classes, or dataset.class_order: natural (as in timm), and "
        "check its normalize and image_size"
    )
    assert _doubt(stage, dataset, {"test": labels_N}) is None
    assert _doubt(stage, dataset, {}) is None


def test_a_given_teacher_sees_pixels_as_it_was_trained_on(here: Path, runtime: Runtime) -> None:
    write_weights(TEACHER, here / "t.pth")
    plain, normalized = (
        plan_of(here, teachers=[{**TEACHER, "checkpoint": "t.pth", **extra}])
        for extra in ({}, {"normalize": {"mean": 0.5, "std": [0.25]}})
    )
    store = Store(str(here / "runs"))
    for plan in (plain, normalized):
        provide_weights(plan, set(), store)
        prepare(plan, store, runtime)
    (a,), (b,) = plain.teachers, normalized.teachers
    assert a.id != b.id
    assert store.record(a).test_nll_last != store.record(b).test_nll_last
    # And so does what makes its logits.
    dataset = open_dataset(store.local_folder(plain.data.folder))
    pixels = pixels_of(b.model, dataset.meta, CPU)
    model = build(TEACHER["name"], args=TEACHER["args"], classes=10, channels=1).eval()
    model.load_state_dict(weights(store, b))
    images = dataset.split("test").images_NHWC
    with torch.inference_mode():
        by_hand = model(((images.float() / 255 - 0.5) / 0.25).permute(0, 3, 1, 2))
    found = predict(model, dataset.split("test"), pixels, batch_size=50, device=CPU, precision="float32")
    torch.testing.assert_close(found, by_hand, atol=1e-5, rtol=1e-5)


def test_training_starts_from_a_checkpoint(here: Path, runtime: Runtime) -> None:
    """At a rate of zero it also ends there; the classifier of other classes is drawn from the seed."""
    student = write_weights(STUDENT, here / "s.safetensors")
    other = write_weights(STUDENT, here / "other.pth", classes=7)
    for name, given in (("s.safetensors", student), ("other.pth", other)):
        plan = plan_of(
            here,
            teachers=[],
            modes=["baseline"],
            students=[{**STUDENT, "checkpoint": name}],
            recipe={"epochs": 1, "batch_size": 20, "learning_rate": 1e-30, "weight_decay": 0.0},
        )
        store = Store(str(here / "runs"))
        provide_weights(plan, set(), store)
        prepare(plan, store, runtime)
        (cell,) = plan.cells
        assert train(cell, store, runtime) is None
        ended = weights(store, cell)
        learned = [k for k in ended if k.endswith(("weight", "bias")) and not k.startswith("fc.")]
        assert all(torch.allclose(ended[k], given[k], atol=1e-12) for k in learned)
        assert ended["fc.weight"].shape == (10, given["fc.weight"].shape[1])


def test_a_teacher_with_a_checkpoint_is_trained_where_that_is_asked_for(here: Path) -> None:
    write_weights(TEACHER, here / "t.pth")
    given, fine_tuned, anew = (
        plan_of(here, teachers=[{**TEACHER, **extra}])
        for extra in ({"checkpoint": "t.pth"}, {"checkpoint": "t.pth", "train": True}, {})
    )
    ids = {plan.teachers[0].id for plan in (given, fine_tuned, anew)}
    assert len(ids) == 3
    costs = [stage_costs(plan, inspect_models(plan))[plan.teachers[0].id] for plan in (given, fine_tuned, anew)]
    assert costs[1] == costs[2] == costs[0] * (3 * 60 * 2) / 120
    with pytest.raises(UserError, match=r"teachers.0: train: false needs the teacher's weights: give a checkpoint"):
        plan_of(here, teachers=[{**TEACHER, "train": False}])


def test_a_given_teachers_id_holds_its_weights_and_not_its_recipe_or_place(here: Path) -> None:
    write_weights(TEACHER, here / "t.pth")
    (here / "elsewhere").mkdir()
    (here / "elsewhere/copy.pth").write_bytes((here / "t.pth").read_bytes())
    write_weights(TEACHER, here / "other.pth", seed=8)
    entry = {**TEACHER, "checkpoint": "t.pth"}
    first = plan_of(here, teachers=[entry]).teachers[0].id
    assert plan_of(here, teachers=[{**entry, "recipe": {"epochs": 9}, "seed": 5}]).teachers[0].id == first
    assert plan_of(here, teachers=[{**entry, "checkpoint": "elsewhere/copy.pth"}]).teachers[0].id == first
    assert plan_of(here, teachers=[{**entry, "checkpoint": "other.pth"}]).teachers[0].id != first


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (
            {**TEACHER, "checkpoint": "small.pth"},
            r"small.pth: of another model than ResNet .*of another shape: layer1.0.conv1.weight",
        ),
        ({**TEACHER, "checkpoint": "seven.pth"}, r"of another shape: fc.weight \(7, 16\) for \(10, 16\)"),
    ],
)
def test_a_checkpoint_of_another_model_is_told_before_anything_runs(
    here: Path, entry: dict[str, Any], reason: str
) -> None:
    write_weights(STUDENT, here / "small.pth")
    write_weights(TEACHER, here / "seven.pth", classes=7)
    plan = plan_of(here, teachers=[entry])
    with pytest.raises(UserError, match=rf"^grid tiny: teachers.0: checkpoint .*{reason}"):
        inspect_models(plan)


@pytest.mark.parametrize("place", ["t.pth", "~nobody-here/t.pth"])
def test_a_checkpoint_that_holds_no_weights_or_has_no_home_is_told(here: Path, place: str) -> None:
    (here / "t.pth").write_bytes(b"garbage")
    with pytest.raises(UserError, match=rf"^checkpoint {place}: (not a checkpoint that can be read|no such file)"):
        plan_of(here, teachers=[{**TEACHER, "checkpoint": place}])


def test_the_same_weights_are_the_same_checkpoint_however_they_are_kept(here: Path) -> None:
    given = write_weights(TEACHER, here / "a.pth")
    safetensors.torch.save_file(dict(reversed(given.items())), here / "b.safetensors")
    torch.save({f"module.{name}": value for name, value in given.items()}, here / "c.pt")
    ids = {
        plan_of(here, teachers=[{**TEACHER, "checkpoint": n}]).teachers[0].id
        for n in ("a.pth", "b.safetensors", "c.pt")
    }
    assert len(ids) == 1


def test_a_damaged_copy_on_the_storage_is_never_used_and_written_anew(here: Path, runtime: Runtime) -> None:
    write_weights(TEACHER, here / "t.pth")
    plan = plan_of(here, teachers=[{**TEACHER, "checkpoint": "t.pth"}])
    store = Store(str(here / "runs"))
    provide_weights(plan, set(), store)
    (name,) = store.names("checkpoints")
    whole = store.read(f"checkpoints/{name}")
    store.write(f"checkpoints/{name}", whole[:-4] + bytes(4))
    execute(plan.data, store, runtime, lambda: prepare_dataset(plan.data, store, runtime))
    error = train(plan.teachers[0], store, runtime)
    assert error is not None
    assert "damaged: not the weights of its name; launch again to have it written anew" in error
    provide_weights(plan, set(), store)
    assert store.read(f"checkpoints/{name}") == whole
    assert train(plan.teachers[0], store, runtime) is None


def test_a_missing_checkpoint_is_told_with_its_place(here: Path) -> None:
    with pytest.raises(UserError, match=f"^checkpoint t.pth: no such file: {here}/t.pth$"):
        plan_of(here, teachers=[{**TEACHER, "checkpoint": "t.pth"}])


def test_a_checkpoint_that_changes_after_planning_is_refused(here: Path) -> None:
    write_weights(TEACHER, here / "t.pth")
    plan = plan_of(here, teachers=[{**TEACHER, "checkpoint": "t.pth"}])
    write_weights(TEACHER, here / "t.pth", seed=8)
    with pytest.raises(UserError, match=r"^checkpoint t.pth: not the weights that the grid was planned with"):
        provide_weights(plan, set(), Store(str(here / "runs")))


def test_weights_of_finished_stages_are_not_asked_for(here: Path) -> None:
    write_weights(TEACHER, here / "t.pth")
    plan = plan_of(here, teachers=[{**TEACHER, "checkpoint": "t.pth"}])
    store = Store(str(here / "runs"))
    provide_weights(plan, {plan.teachers[0].id}, store)
    assert store.names("checkpoints") == []
    provide_weights(plan, set(), store)
    assert store.names("checkpoints") == [f"{plan.teachers[0].model.checkpoint_sha256}.safetensors"]


@pytest.fixture
def served(here: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server over a folder, and what it was asked for."""
    asked: list[str] = []
    (here / "web").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/cut"):
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"short")
                return
            super().do_GET()

        def log_request(self, *args: Any) -> None:
            asked.append(self.path)

        def log_error(self, *args: Any) -> None:
            pass

    handler = functools.partial(Handler, directory=str(here / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def test_a_checkpoint_by_url_is_downloaded_once(here: Path, served: tuple[str, list[str]]) -> None:
    url, asked = served
    given = write_weights(TEACHER, here / "web/t.safetensors")
    for _ in range(2):
        plan = plan_of(here, teachers=[{**TEACHER, "checkpoint": f"{url}/t.safetensors"}])
        inspect_models(plan)
        store = Store(str(here / "runs"))
        provide_weights(plan, set(), store)
    assert asked == ["/t.safetensors"]
    (kept,) = (downloads_folder() / "checkpoints").glob("*/*")
    assert kept.read_bytes() == (here / "web/t.safetensors").read_bytes()
    (stored,) = store.names("checkpoints")
    assert same(safetensors.torch.load(store.read(f"checkpoints/{stored}")), given)


def test_a_question_mark_is_part_of_a_files_name(here: Path) -> None:
    write_weights(TEACHER, here / "t.pth")
    by_path = plan_of(here, teachers=[{**TEACHER, "checkpoint": "t.pth"}])
    (here / "t.pth").rename(here / "t?token=x#1;2.pth")
    for checkpoint in (f"file://{here}/t?token=x#1;2.pth", f"{here}/t?token=x#1;2.pth"):
        assert plan_of(here, teachers=[{**TEACHER, "checkpoint": checkpoint}]).teachers[0].id == by_path.teachers[0].id


def test_a_download_that_is_cut_off_is_not_kept(here: Path, served: tuple[str, list[str]]) -> None:
    url, _ = served
    with pytest.raises(
        UserError, match=rf"^checkpoint {url}/cut.pth: cannot be downloaded: cut off after 5 of 1000 bytes"
    ):
        plan_of(here, teachers=[{**TEACHER, "checkpoint": f"{url}/cut.pth"}])
    assert not [path for path in (here / "cache").rglob("*") if path.is_file()]


def test_a_url_that_fails_says_so_and_leaves_nothing(here: Path, served: tuple[str, list[str]]) -> None:
    url, _ = served
    with pytest.raises(
        UserError, match=f"^checkpoint {url}/no.pth: cannot be downloaded: .*404.*; download it by hand"
    ):
        plan_of(here, teachers=[{**TEACHER, "checkpoint": f"{url}/no.pth"}])
    assert not [path for path in (here / "cache").rglob("*") if path.is_file()]
