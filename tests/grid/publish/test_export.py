"""A published student is the one on the record: by timm, by onnxruntime, by its own code, and by what its card says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image

import grid.publish.folder
import launch
from analysis.cli import main
from analysis.publish import choose
from analysis.read.load import load_grid as load_results
from grid.contract.program.installed import hint
from grid.contract.record import Record, weights_file
from grid.errors import UserError
from grid.plan import CellStage, Plan, make_plan
from grid.read.grid_file import load_grid
from grid.store.plan_file import write_plan
from grid.store.store import Store
from grid.work.execute import Runtime
from grid.work.models import pixels_of
from kd.data.dataset import Dataset, open_dataset
from kd.evaluate import predict, score
from tests.conftest import RESNET, tiny_grid
from tests.grid.read.test_own_models import MLP
from tests.grid.running import prepare, train

Capture = pytest.CaptureFixture[str]
CPU = torch.device("cpu")
TRUST = ["--trust-code"]


class Ran:
    """A grid whose stages ran in this process, and what was published from it."""

    def __init__(self, root: Path) -> None:
        self.root, self.storage = root, str(root / "runs")
        (root / "my_models.py").write_text(MLP)
        students = [
            tiny_grid()["students"][0],
            {"label": "ResNet-S", "name": "resnet18", "args": RESNET, "image_size": 12},
            {"label": "CNN", "name": "small_cnn", "image_size": 16, "normalize": {"mean": 0.5, "std": 0.25}},
            {"label": "Mine", "factory": f"{root}/my_models.py:mlp", "args": {"width": 5}},
        ]
        (root / "tiny.yaml").write_text(json.dumps(tiny_grid(students=students)))
        self.plan: Plan = make_plan(load_grid(str(root / "tiny.yaml")))
        self.store = Store(self.storage)
        runtime = Runtime(launch="launch-1", code_version="0.1.0 (abc)").here(threads=1, device="cpu")
        prepare(self.plan, self.store, runtime)
        for cell in self.plan.cells:
            assert train(cell, self.store, runtime) is None
        write_plan(self.plan, self.store)

    def cell(self, student: str, mode: str = "distilled", seed: int = 0) -> CellStage:
        return next(
            cell for cell in self.plan.cells if (cell.model.shown, cell.mode, cell.seed) == (student, mode, seed)
        )

    def record(self, student: str, mode: str = "distilled", seed: int = 0) -> Record:
        return self.store.record(self.cell(student, mode, seed))

    @property
    def dataset(self) -> Dataset:
        return open_dataset(self.store.local_folder(self.plan.data.folder))

    def pixels(self, student: str) -> torch.Tensor:
        """What the student was tested on."""
        return pixels_of(self.cell(student).model, self.dataset.meta, CPU)(self.dataset.test.images_NHWC)

    def image(self, number: int = 0) -> Image.Image:
        return Image.fromarray(self.dataset.test.images_NHWC[number, :, :, 0].numpy())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("ran"))


@pytest.fixture(scope="module")
def published(ran: Ran) -> dict[str, Path]:
    """Folders by student, ONNX included."""
    folders = {student: ran.root / student for student in ("ViT-S", "ResNet-S", "CNN", "Mine")}
    for student, folder in folders.items():
        assert (
            main(["export", "tiny", "--storage", ran.storage, "--student", student, "--to", str(folder), *TRUST]) == 0
        )
    return folders


def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid.publish.folder, "missing_packages", lambda: ["onnx", "onnxscript"])


def front_matter(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    return found


def blocks(folder: Path) -> list[str]:
    """The Python of a card."""
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.long
@pytest.mark.parametrize("student", ["ViT-S", "ResNet-S"])
def test_timm_gives_the_records_figures_on_the_test_images(ran: Ran, published: dict[str, Path], student: str) -> None:
    model = timm.create_model(f"local-dir:{published[student]}", pretrained=True).eval()
    config = model.pretrained_cfg
    pixels = pixels_of(ran.cell(student).model, ran.dataset.meta, CPU)
    size = pixels.size or 8
    stated = replace(pixels, mean_C=torch.tensor(config["mean"]), std_C=torch.tensor(config["std"]))
    logits_NC = predict(model, ran.dataset.test, stated, batch_size=100, device=CPU, precision="float32")
    record = ran.record(student)
    assert score(logits_NC, ran.dataset.test.labels_N).top1 == record.test_top1_last
    assert score(logits_NC, ran.dataset.test.labels_N).nll == pytest.approx(record.test_nll_last, abs=1e-6)
    assert tuple(config["input_size"]) == (1, size, size)
    assert config["label_names"] == list("0123456789")


def test_timms_own_transform_is_the_pipeline_of_the_tests(ran: Ran, published: dict[str, Path]) -> None:
    model = timm.create_model(f"local-dir:{published['ViT-S']}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    images = torch.stack([transform(ran.image(i)) for i in range(len(ran.dataset.test))])
    torch.testing.assert_close(images, ran.pixels("ViT-S"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("student", ["ViT-S", "ResNet-S", "CNN", "Mine"])
def test_onnxruntime_gives_the_records_accuracy(ran: Ran, published: dict[str, Path], student: str) -> None:
    session = onnxruntime.InferenceSession(published[student] / "model.onnx", providers=["CPUExecutionProvider"])
    images = ran.pixels(student).contiguous().numpy()
    (logits,) = session.run(None, {"images": images})
    accuracy = score(torch.from_numpy(logits), ran.dataset.test.labels_N).top1
    assert accuracy == ran.record(student).test_top1_last
    (one,) = session.run(["logits"], {"images": images[:1]})
    np.testing.assert_allclose(one, logits[:1], atol=1e-5)


def test_the_onnx_file_stands_alone_and_names_no_folder_of_this_machine(published: dict[str, Path]) -> None:
    for folder in published.values():
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert b"site-packages" not in (folder / "model.onnx").read_bytes()
        assert str(folder.parent).encode() not in b"".join(p.read_bytes() for p in folder.iterdir())


def test_the_card_holds_the_numbers_of_the_record(ran: Ran, published: dict[str, Path]) -> None:
    folder, record = published["ViT-S"], ran.record("ViT-S")
    facts = front_matter(folder)
    assert facts["library_name"] == "timm"
    assert facts["datasets"] == ["digits"]
    assert facts["model-index"][0]["results"][0]["metrics"][0]["value"] == record.test_top1_last
    (result,) = ModelCard.load(folder / "README.md").data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", record.test_top1_last)
    text = (folder / "README.md").read_text(encoding="utf-8")
    chosen = choose(load_results(ran.storage, "tiny"), student="ViT-S")
    assert chosen.gain is not None
    assert chosen.gain.low is not None
    stated = [
        f"**{100 * record.test_top1_last:.2f} %**",
        f"{chosen.accuracy.mean:.2f} % [{chosen.accuracy.low:.2f}, {chosen.accuracy.high:.2f}], n = 2",
        f"{chosen.gain.mean:+.2f} points [{chosen.gain.low:+.2f}, {chosen.gain.high:+.2f}], n = 2",
        f"{record.parameters:,} parameters",
        f"temperature = {record.temperature:g}, alpha = {record.alpha:g}",
        "the only distilled setting trained; seed 0, the first of the experiment",
        *(str(getattr(record, name)) for name in ("stage_id", "teacher_id", "dataset_fingerprint", "code_version")),
        str(record.weights_sha256),
    ]
    assert [part for part in stated if part not in text] == []
    assert json.loads((folder / "record.json").read_bytes()) == asdict(record)


def test_the_cards_python_runs_as_it_stands(
    ran: Ran, published: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for student in ("ViT-S", "ResNet-S", "CNN"):
        monkeypatch.chdir(published[student])
        expected = onnxruntime.InferenceSession("model.onnx").run(None, {"images": ran.pixels(student)[:1].numpy()})[0]
        own, by_onnx = blocks(published[student])
        for code in (own, by_onnx):
            names: dict[str, Any] = {"image": ran.image(0)}
            exec(code, names)
            found = names["logits"].detach().numpy() if code == own else names["logits"]
            # A resized picture has whole pixel values by PIL, and fractions where it was trained.
            np.testing.assert_allclose(found, expected, atol=1e-5 if student == "ViT-S" else 0.05)


def test_a_users_model_comes_with_its_code_and_needs_nothing_of_ours(ran: Ran, published: dict[str, Path]) -> None:
    folder = published["Mine"]
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "model.onnx", "model.safetensors", "my_models.py", "record.json")
    ]
    assert "library_name" not in front_matter(folder)
    ran.image(0).save(ran.root / "image.png")
    code = f"from PIL import Image; image = Image.open({str(ran.root / 'image.png')!r})\n{blocks(folder)[0]}"
    code += "\nprint(logits.argmax().item()); import sys; assert not {'kd', 'grid', 'timm'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env={"PATH": ""}, capture_output=True, text=True)
    expected = onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"images": ran.pixels("Mine")[:1].numpy()})
    assert done.stdout.strip() == str(expected[0].argmax()), done.stderr


def test_one_of_ours_is_loaded_by_our_builder(published: dict[str, Path]) -> None:
    assert not (published["CNN"] / "config.json").exists()
    assert 'build("small_cnn", args={}, classes=10, channels=1)' in blocks(published["CNN"])[0]
    assert "mean [0.5], std [0.25]" in (published["CNN"] / "README.md").read_text(encoding="utf-8")


def test_a_baseline_and_a_seed_are_to_be_had_by_name(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    without_onnx(monkeypatch)
    where = ["--storage", ran.storage, "--to", str(tmp_path / "out")]
    assert main(["export", *where, "--student", "ViT-S", "--mode", "baseline", "--seed", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("ViT-S trained alone on digits, seed 1: ")
    assert err == f"warning: no model.onnx: onnx and onnxscript not installed: {hint('export')}\n"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("README.md", "config.json", "model.safetensors", "record.json")
    }
    text = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "seed 1, asked for by number" in text
    assert "onnx" not in text
    assert json.loads((tmp_path / "out/record.json").read_bytes()) == asdict(ran.record("ViT-S", "baseline", 1))


def refused(capsys: Capture, arguments: list[str]) -> str:
    """The one line of a refusal."""
    assert main(["export", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err.removeprefix("error: ").strip()


@pytest.mark.parametrize("content", ["notes.txt", None])
def test_what_is_there_already_is_left_alone(ran: Ran, tmp_path: Path, content: str | None, capsys: Capture) -> None:
    there = tmp_path / "out"
    if content is None:
        there.write_text("a file")
    else:
        there.mkdir()
        (there / content).write_text("mine")
    line = refused(capsys, ["--storage", ran.storage, "--student", "ViT-S", "--to", str(there)])
    assert line == f"--to {there}: there is something already: give a new folder, or an empty one"
    assert len(list(tmp_path.rglob("*"))) == (1 if content is None else 2)


def test_an_empty_folder_is_filled(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_onnx(monkeypatch)
    (tmp_path / "out").mkdir()
    assert main(["export", "--storage", ran.storage, "--student", "Mine", "--to", str(tmp_path / "out"), *TRUST]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_damaged_weights_are_refused_and_nothing_is_left(ran: Ran, tmp_path: Path, capsys: Capture) -> None:
    path = ran.root / "runs" / ran.cell("ViT-S").folder / weights_file(ran.record("ViT-S"))
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        line = refused(capsys, ["--storage", ran.storage, "--student", "ViT-S", "--to", str(tmp_path / "out")])
        assert re.search(rf"{path.name}: damaged: its sha256 is not the one on its record; remove .*", line)
        path.unlink()
        line = refused(capsys, ["--storage", ran.storage, "--student", "ViT-S", "--to", str(tmp_path / "out")])
        assert f"{path.name}: cannot be read: FileNotFoundError" in line
    finally:
        path.write_bytes(whole)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_breaks_off_leaves_nothing(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(facts: object) -> str:
        raise KeyboardInterrupt

    without_onnx(monkeypatch)
    monkeypatch.setattr(grid.publish.folder, "model_card", die)
    with pytest.raises(KeyboardInterrupt):
        main(["export", "--storage", ran.storage, "--student", "ViT-S", "--to", str(tmp_path / "out")])
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_line(ran: Ran, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    to = tmp_path / "file" / "out"
    line = refused(capsys, ["--storage", ran.storage, "--student", "ViT-S", "--to", str(to)])
    assert line == f"--to {to}: Not a directory"


def test_code_that_would_leave_the_folder_is_refused(tmp_path: Path) -> None:
    for name in ("../evil.py", "/evil.py", "README.md"):
        with pytest.raises(UserError, match="outside of the folder, or not Python"):
            grid.publish.folder._write_code(tmp_path, name, "")


@pytest.fixture
def strangers(ran: Ran, tmp_path: Path) -> tuple[str, Path]:
    """A storage whose plan carries a stranger's code, which leaves a file when it is run; and that file."""
    storage, canary = tmp_path / "runs", tmp_path / "canary"
    shutil.copytree(ran.storage, storage)
    file = storage / "grids" / "tiny" / "plan.json"
    plan = json.loads(file.read_text())
    mine = next(student for student in plan["spec"]["students"] if student["label"] == "Mine")
    mine["code"] = {name: f"open({str(canary)!r}, 'w').close()\n{text}" for name, text in mine["code"].items()}
    file.write_text(json.dumps(plan))
    return str(storage), canary


def test_code_in_a_storage_is_not_run_unless_it_is_trusted(
    strangers: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    without_onnx(monkeypatch)
    storage, canary = strangers
    asked = ["--storage", storage, "--student", "Mine", "--to", str(tmp_path / "out")]
    line = refused(capsys, asked)
    assert line.startswith("Mine is made by code that is not part of this program, ")
    assert "my_models.py:mlp, and an export runs it, from my_models.py, which the storage carries: read it in " in line
    assert line.endswith(f"{storage}/grids/tiny/plan.json, spec.students.3.code; give --trust-code if you trust it")
    assert not canary.exists()
    assert not (tmp_path / "out").exists()
    assert main(["export", *asked, *TRUST]) == 0
    assert canary.exists()


def test_students_of_timm_and_of_ours_ask_for_no_trust(
    strangers: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_onnx(monkeypatch)
    storage, canary = strangers
    for student in ("ResNet-S", "CNN"):
        assert main(["export", "--storage", storage, "--student", student, "--to", str(tmp_path / student)]) == 0
    assert not canary.exists()


def test_no_other_command_runs_code_in_a_storage(
    strangers: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    storage, canary = strangers
    for command in ("table", "records", "curves", "compare"):  # of all others see tests/test_imports.py
        assert main([command, "--storage", storage]) in (0, 2)
    assert launch.main(["--status", "tiny", "--storage", storage]) in (0, 1)
    assert not canary.exists()
