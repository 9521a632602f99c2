"""A teacher's logits are computed once, unit by unit, and are what the teacher itself says of the same views."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import grid.work.publish
import grid.work.teacher_logits
from grid.contract.files.layout import PROGRESS, RECORD
from grid.plan import LogitsStage, Plan
from grid.store.store import Store
from grid.work.execute import Runtime
from grid.work.teacher_logits import LogitsCache, load_teacher
from kd.data.dataset import Dataset, open_dataset
from kd.data.views.pixels import Pixels
from kd.data.views.policy import ViewPolicy
from kd.data.views.views import EpochViews, ViewStream
from kd.logits import compute_logits
from kd.objective import OnlineTeacher
from kd.recipe import LogitsFormat
from tests.conftest import tiny_grid, with_epochs
from tests.grid.running import Killed, WatchedStore, compute, dying, files, prepare, retrain, train

Planner = Callable[..., Plan]

CPU = torch.device("cpu")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[EpochViews]:
    """Every pass of a teacher over the training images from here on."""
    seen: list[EpochViews] = []

    def counted(teacher: nn.Module, views: EpochViews, **options: Any) -> torch.Tensor:
        seen.append(views)
        return compute_logits(teacher, views, **options)

    monkeypatch.setattr(grid.work.teacher_logits, "compute_logits", counted)
    return seen


def prepared(plan: Plan, folder: Path, runtime: Runtime) -> Store:
    store = Store(str(folder))
    prepare(plan, store, runtime)
    return store


def dataset_of(stage: LogitsStage, store: Store) -> Dataset:
    return open_dataset(store.local_folder(stage.teacher.data.folder))


def cache_of(stage: LogitsStage, store: Store) -> LogitsCache:
    return LogitsCache(stage, store, dataset_of(stage, store), CPU)


def views_of(stage: LogitsStage, store: Store, *, stream: int, epoch: int) -> EpochViews:
    """An epoch of views as a student sees it."""
    dataset = dataset_of(stage, store)
    policy = ViewPolicy(**{**vars(stage.views), "stream": stream})
    return ViewStream(dataset.train, policy, Pixels.of(dataset.meta, size=None, device=CPU), device=CPU).epoch(epoch)


def said_by_the_teacher(stage: LogitsStage, store: Store, views: EpochViews) -> torch.Tensor:
    """Its logits of a whole epoch, float32 [N, C], without any cache."""
    dataset = dataset_of(stage, store)
    pixels = Pixels.of(dataset.meta, size=stage.teacher.model.image_size, device=CPU)
    teacher = OnlineTeacher(load_teacher(stage.teacher, store, dataset, CPU), pixels=pixels, precision="auto")
    teacher.start_epoch(views)
    return teacher.seen(torch.arange(len(views)), temperature=1.0).logits_BC


def test_each_unit_is_one_file_and_the_record_says_of_what(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    plan = tiny_plan(seeds=[0, 1], view_streams=2)
    store, (stage,) = prepared(plan, tmp_path, runtime), plan.logits
    assert store.names(stage.folder) == [
        "identity.json",
        "record.json",
        "stream-000-epoch-00000.safetensors",
        "stream-000-epoch-00001.safetensors",
        "stream-001-epoch-00000.safetensors",
        "stream-001-epoch-00001.safetensors",
        "test.safetensors",
        "val.safetensors",
    ]
    assert store.is_done(stage)
    record, teacher = store.record(stage), store.record(stage.teacher)
    assert (record.kind, record.status, record.epochs) == ("logits", "done", 2)
    assert (record.teacher_id, record.teacher_sha256) == (stage.teacher.id, teacher.weights_sha256)
    assert record.dataset_fingerprint == teacher.dataset_fingerprint
    assert record.precision == "float32"


LAYOUTS = {
    "epochs": ({"crop_padding": 1}, (2, 2)),
    "every crop": ({"crop_padding": 1}, (6, 4)),
    "every crop and flip": ({"crop_padding": 1, "horizontal_flip": True}, (10, 9)),
    "both flips": ({"horizontal_flip": True}, (2, 2)),
    "the plain image": ({}, (2, 2)),
    "mixed images": ({"crop_padding": 1, "mixing": {"mixup_alpha": 0.4, "cutmix_alpha": 1}}, (2, 2)),
}


@pytest.mark.long
@pytest.mark.parametrize("stored_as", [{}, {"dtype": "float32"}], ids=["float16", "float32"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_epoch_is_what_the_teacher_says_of_its_views_to_the_bit(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, layout: str, stored_as: dict[str, Any]
) -> None:
    views, epochs = LAYOUTS[layout]
    plan = tiny_plan(recipe={"epochs": 2, "batch_size": 20, "views": views}, seeds=[0, 1], view_streams=2)
    store = prepared(plan, tmp_path, runtime)
    (planned,) = plan.logits
    stage = LogitsStage(
        teacher=planned.teacher, views=planned.views, stored_as=LogitsFormat(**stored_as), epochs=epochs
    )
    assert stage.keeps_every_view is (layout not in ("epochs", "mixed images"))
    assert compute(stage, store, runtime) is None
    cache = cache_of(stage, store)
    seen = []
    for stream, epoch in ((0, 0), (0, 1), (1, 0), (1, 1)):
        views_E = views_of(stage, store, stream=stream, epoch=epoch)
        stored = cache.epoch(views_E)
        expected = said_by_the_teacher(stage, store, views_E).to(stored.values.dtype)
        assert stored.values.dtype == (torch.float32 if stored_as else torch.float16)
        assert stored.values.shape == (60, 10)
        assert torch.equal(stored.values, expected)
        seen.append(stored.values)
    different = sum(not torch.equal(seen[0], other) for other in seen[1:])
    assert different == (0 if layout == "the plain image" else 3)


def test_a_teacher_sees_the_views_at_its_own_input_size(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    teacher = {**tiny_grid()["teachers"][0], "image_size": 16}
    plan = tiny_plan(seeds=[0], teachers=[teacher], students=tiny_grid()["students"][1:])
    store, (stage,) = prepared(plan, tmp_path, runtime), plan.logits
    views = views_of(stage, store, stream=0, epoch=1)
    assert views.batch(torch.arange(2)).shape == (2, 1, 8, 8)
    assert views.seen_through(cache_of(stage, store).pixels).batch(torch.arange(2)).shape == (2, 1, 16, 16)
    assert torch.equal(cache_of(stage, store).epoch(views).values, said_by_the_teacher(stage, store, views).half())


def test_the_largest_logits_alone_are_kept_where_the_grid_says_so(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    plan = tiny_plan(seeds=[0], logits={"dtype": "float32", "top_k": 3})
    store, (stage,) = prepared(plan, tmp_path, runtime), plan.logits
    views = views_of(stage, store, stream=0, epoch=1)
    stored, full = cache_of(stage, store).epoch(views), said_by_the_teacher(stage, store, views)
    assert stored.values.shape == (60, 3)
    assert stored.top_NK is not None
    kept = full.gather(1, stored.top_NK.long())
    assert torch.equal(stored.values, kept)
    assert torch.equal(kept.min(dim=1).values, full.topk(3, dim=1).values[:, -1])


def test_plain_images_are_those_of_val_and_test(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    plan = tiny_plan(seeds=[0])
    store, (stage,) = prepared(plan, tmp_path, runtime), plan.logits
    cache, dataset = cache_of(stage, store), dataset_of(stage, store)
    teacher = load_teacher(stage.teacher, store, dataset, CPU)
    pixels = Pixels.of(dataset.meta, size=None, device=CPU)
    for name in ("val", "test"):
        with torch.no_grad():
            expected = teacher(pixels(dataset.split(name).images_NHWC)).half()
        assert torch.equal(cache.plain(name).values, expected)


def test_an_intact_cache_needs_no_teacher(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(seeds=[0])
    store, (stage,) = prepared(plan, tmp_path, runtime), plan.logits

    def refuse(*args: object) -> nn.Module:
        raise AssertionError("the teacher is loaded")

    monkeypatch.setattr(grid.work.teacher_logits, "load_teacher", refuse)
    cache = cache_of(stage, store)
    cache.epoch(views_of(stage, store, stream=0, epoch=1))
    cache.plain("test")
    assert train(plan.cells[1], store, runtime) is None
    assert plan.cells[1].mode == "distilled"


def test_only_what_is_missing_is_computed(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, passes: list[EpochViews]
) -> None:
    plan = tiny_plan(seeds=[0])
    store, (stage,) = prepared(plan, tmp_path, runtime), plan.logits
    assert len(passes) == 2
    longer = with_epochs(stage, 4, 1)
    assert not store.is_done(longer)
    before = files(store, stage)
    assert compute(longer, store, runtime) is None
    assert [(views.stream.views.stream, views.epoch) for views in passes[2:]] == [(1, 0), (0, 2), (0, 3)]
    after = files(store, stage)
    assert {unit.file: after[unit.file] for unit in stage.units} == {u.file: before[u.file] for u in stage.units}
    assert store.is_done(longer)
    assert store.is_done(stage)
    assert store.record(longer).epochs == 4
    del passes[:]
    store.remove(f"{stage.folder}/{stage.units[1].file}")
    assert not store.is_done(stage)
    assert compute(stage, store, runtime) is None
    assert [views.epoch for views in passes] == [1]
    assert store.is_done(stage)


def test_whoever_computes_logits_publishes_the_same_bytes(tmp_path: Path, tiny_plan: Planner, runtime: Runtime) -> None:
    """Two workers may do the same unit: a reader of the one file must not find it changed by the other."""
    plan = tiny_plan(seeds=[0])
    first, second = (prepared(plan, tmp_path / name, runtime) for name in ("first", "second"))
    (stage,) = plan.logits
    for name in (*(unit.file for unit in stage.units), "val.safetensors", "test.safetensors"):
        assert first.read(f"{stage.folder}/{name}") == second.read(f"{stage.folder}/{name}")


def test_killed_between_two_units_it_goes_on_with_the_next(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, passes: list[EpochViews]
) -> None:
    plan = tiny_plan(seeds=[0])
    store, (stage,) = prepared(plan, tmp_path, runtime), plan.logits
    longer = with_epochs(stage, 6)
    store.remove(f"{stage.folder}/{RECORD}")
    del passes[:]
    with pytest.raises(Killed):
        compute(longer, dying(store, after=3, ending=".safetensors"), runtime)
    assert [views.epoch for views in passes] == [2, 3, 4]
    assert not store.is_done(longer)
    assert compute(longer, store, runtime) is None
    assert [views.epoch for views in passes] == [2, 3, 4, 5]
    assert store.is_done(longer)


def test_workers_do_their_shares_first_and_then_what_the_others_have_not(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    plan = tiny_plan(seeds=[0])
    store, (planned,) = prepared(plan, tmp_path, runtime), plan.logits
    stage = with_epochs(planned, 6)
    for unit in planned.units:
        store.remove(f"{stage.folder}/{unit.file}")
    written: list[str] = []
    counts: list[int] = []

    def make(storage: Store, part: int) -> None:
        cache_of(stage, storage).make_all(part=part, parts=2, on_stored=counts.append)

    def note(path: str) -> None:
        written.append(path.rsplit("/", 1)[-1])
        if len(written) == 4:
            raise Killed

    # The second of two is on its own for a while, and dies beyond its share.
    with pytest.raises(Killed):
        make(WatchedStore(store.url, note), 1)
    # The first finds that it has only the rest of its own share to do.
    make(WatchedStore(store.url, note), 0)
    assert written == [stage.units[i].file for i in (1, 3, 5, 0, 2, 4)]
    assert counts == [1, 2, 3, 5, 6]
    make(WatchedStore(store.url, note), 1)
    assert len(written) == 6, "nothing is left for the second"


def test_seconds_of_those_who_helped_count_as_long_as_ones_own(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of four files are another worker's: they are told of as if each had taken as long as the one made here."""
    plan = tiny_plan(seeds=[0])
    store, (planned,) = prepared(plan, tmp_path, runtime), plan.logits
    stage = with_epochs(planned, 4)
    for unit in planned.units:
        store.remove(f"{stage.folder}/{unit.file}")
    make_all = LogitsCache.make_all

    def helped(cache: LogitsCache, **how: Any) -> int:
        for unit in stage.units[1:]:
            cache.make(unit)
        time.sleep(0.2)  # what is made here takes that long at least
        return make_all(cache, **how)

    monkeypatch.setattr(LogitsCache, "make_all", helped)
    assert compute(stage, store, runtime) is None
    record = store.record(stage)
    assert record.device_seconds is not None
    assert record.seconds_total is not None
    assert record.device_seconds >= record.seconds_total + 3 * 0.2


def test_progress_is_counted_in_views(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid.work.publish, "PROGRESS_SECONDS", 0.0)
    plan = tiny_plan(seeds=[0])
    store, (stage,) = prepared(plan, tmp_path, runtime), plan.logits
    longer = with_epochs(stage, 4)
    reports: list[tuple[float, float]] = []

    def note(path: str) -> None:
        if path.endswith(PROGRESS):
            facts = json.loads(store.read(path))
            reports.append((facts["done"], facts["total"]))

    assert compute(longer, WatchedStore(store.url, note), runtime) is None
    assert reports == [(3, 4), (4, 4)]
    assert PROGRESS not in store.names(stage.folder)


def test_a_teacher_trained_to_other_weights_has_its_logits_computed_again(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime, passes: list[EpochViews], caplog: pytest.LogCaptureFixture
) -> None:
    plan = tiny_plan(seeds=[0])
    store, (stage,) = prepared(plan, tmp_path, runtime), plan.logits
    before, stale = files(store, stage), store.read(f"{stage.folder}/{stage.units[0].file}")
    del passes[:]
    retrain(stage.teacher, store)
    assert not store.is_done(stage)
    assert compute(stage, store, runtime) is None
    assert [views.epoch for views in passes] == [0, 1]
    for unit in stage.units:
        assert f"{stage.folder}/{unit.file}: computed from something else" in caplog.text
    after = files(store, stage)
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values()), "every file is written again"
    assert store.read(f"{stage.folder}/{stage.units[0].file}") != stale
    assert store.is_done(stage)
    assert store.record(stage).teacher_sha256 == store.record(stage.teacher).weights_sha256
    views = views_of(stage, store, stream=0, epoch=0)
    assert torch.equal(cache_of(stage, store).epoch(views).values, said_by_the_teacher(stage, store, views).half())


def test_a_teacher_trained_to_the_same_weights_keeps_its_logits(
    tmp_path: Path, tiny_plan: Planner, runtime: Runtime
) -> None:
    plan = tiny_plan(seeds=[0])
    store, (stage,) = prepared(plan, tmp_path, runtime), plan.logits
    store.remove_folder(stage.teacher.folder)
    assert not store.is_done(stage.teacher)
    assert not store.is_done(stage)
    assert train(stage.teacher, store, runtime) is None
    assert store.is_done(stage)
