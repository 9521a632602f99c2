"""Train one model: a teacher on the labels, a student alone or with a teacher; or take a given teacher as it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict

import torch
from torch import nn

from grid.contract.files.local_files import OddFileError
from grid.contract.record import CURVE, PREDICTIONS, WEIGHTS
from grid.plan import Trainable
from grid.store.lease import Holds, always
from grid.store.records import now
from grid.store.store import CHECKPOINT, Store
from grid.work.dataset import opened
from grid.work.execute import Runtime
from grid.work.models import at_start, pixels_of
from grid.work.publish import Progress, publish
from grid.work.results import curve_to_parquet, metrics_of, model_facts, provenance, used
from grid.work.supervision import Supervision
from kd.checkpoint import CheckpointError, state_dict_to_bytes, state_from_bytes, state_to_bytes, weights_to_bytes
from kd.data.dataset import Dataset
from kd.data.views.views import ViewStream
from kd.evaluate import INFERENCE_BATCH, predict, rounded, score
from kd.machine.out_of_memory import is_out_of_gpu_memory
from kd.machine.workers import WHOLE, Shard, first_reads
from kd.models.build import on_device
from kd.models.class_order import fit_of
from kd.precision import resolve
from kd.training.resume import fitting_state
from kd.training.state import CurveRow, TrainState
from kd.training.train import train

log = logging.getLogger("kd_grid")

# Seconds between the checkpoints that epochs end with, a step of a storage's slowness: none on a disk.
BETWEEN_EPOCHS = 2.0


def run_trainable(
    stage: Trainable,
    store: Store,
    runtime: Runtime,
    *,
    leave: Callable[[], bool] = lambda: False,
    holds: Holds = always,
    found: Collection[str] | None = None,
    shard: Shard = WHOLE,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> None:
    """Train a teacher or a student from wherever its checkpoint stands, and publish weights, curve, predictions and
    record. A given teacher is only evaluated. holds: whether the stage is still this launch's. found: the names in its
    folder when it was taken, where they are known. Raises StoppedError once leave() says so and a checkpoint is stored,
    and where the stage is another launch's, whose files stay as they are."""
    started_at, started = now(), time.perf_counter()
    device, recipe = torch.device(runtime.device), stage.recipe
    dataset = opened(stage.data, store, runtime)
    model = on_device(at_start(stage, store, dataset.meta, seed=stage.seed), device)
    pixels = pixels_of(stage.model, dataset.meta, device)
    supervision = Supervision(stage, store, dataset, device)
    is_given = stage.model.is_given
    # What a checkpoint has to agree with: the id knows neither.
    how = {"teacher_sha256": supervision.weights_sha256, "precision": resolve(recipe.precision, device)}
    how["dataset_fingerprint"] = dataset.meta.fingerprint
    resume = None
    if not is_given and (shard.world > 1 or found is None or CHECKPOINT in found):
        resume = _load_checkpoint(stage, store, how, shard, device, model, supervision.beside, dataset)
    setup = time.perf_counter() - started
    progress = Progress(stage, store)
    if shard.rank == 0:
        progress.report(len(resume.curve) if resume else 0)

    # Of the last evaluation, which every training ends with: float32 [N, C] of each split.
    last_logits: dict[str, torch.Tensor] = {}

    def evaluate(model: nn.Module) -> CurveRow:
        row: CurveRow = {}
        for name in dataset.evaluated:
            split = dataset.split(name)
            logits_NC = predict(
                model, split, pixels, batch_size=INFERENCE_BATCH, device=device, precision=recipe.precision
            )
            last_logits[name] = logits_NC.cpu()
            metrics = score(logits_NC, split.labels_N, teacher_logits_NC=supervision.plain_logits.get(name))
            row |= {f"{name}_{metric}": value for metric, value in asdict(metrics).items() if value is not None}
        return row

    saved_at = time.monotonic()

    def on_state(state: TrainState) -> None:
        nonlocal saved_at
        is_asked_for = state.loss_S is not None  # in the middle of an epoch
        is_due = is_asked_for or time.monotonic() - saved_at >= BETWEEN_EPOCHS * (store.slowness - 1)
        if is_due:
            if len(state.curve) < recipe.epochs and holds():
                store.write(f"{stage.folder}/{CHECKPOINT}", state_to_bytes(state.to_dict() | how))
            saved_at = time.monotonic()
        progress.report(len(state.curve) + (0 if state.loss_S is None else state.step / len(state.loss_S)))

    if is_given:
        evaluating = time.perf_counter()
        curve: list[CurveRow] = [{"epoch": 0, **evaluate(model)}]
        curve[0] |= {"seconds_train": 0.0, "seconds_evaluate": time.perf_counter() - evaluating}
    else:
        try:
            curve = train(
                model,
                beside=supervision.beside,
                views=ViewStream(dataset.train, recipe.views, pixels, device=device),
                objective=supervision.objective,
                recipe=recipe,
                seed=stage.seed,
                evaluate=evaluate,
                resume=resume,
                on_state=on_state,
                leave=leave,
                save_now=lambda: time.monotonic() - saved_at >= 60 * runtime.checkpoint_minutes,
                shard=shard,
                wrap=wrap,
            )
        except RuntimeError as error:
            if not is_out_of_gpu_memory(error):
                raise
            images, reason = recipe.micro_batch_size or recipe.batch_size, str(error).partition("\n")[0]
            raise torch.OutOfMemoryError(
                f"{stage.model.shown}: no memory is left on the GPU for {images} images at a time: set a smaller "
                f"micro_batch_size in its recipe ({reason})"
            ) from error
    if shard.rank != 0:
        return
    trained_at = time.perf_counter()
    outputs = {WEIGHTS: weights_to_bytes(model), CURVE: curve_to_parquet(curve)}
    if last_logits and runtime.keep_predictions:
        outputs[PREDICTIONS] = state_dict_to_bytes({name: rounded(of_NC) for name, of_NC in last_logits.items()})
    seconds = {name: sum(float(row[name] or 0) for row in curve) for name in ("seconds_train", "seconds_evaluate")}
    facts = model_facts(stage, model, dataset.meta, device, seconds_train=seconds["seconds_train"])
    values = stage.axes() | facts | metrics_of(curve) | seconds
    values |= {
        "epochs": 0 if is_given else recipe.epochs,
        "started_at": started_at,
        "seconds_setup": setup,
        # Earlier sessions are in the curve.
        "seconds_total": setup + sum(seconds.values()) + time.perf_counter() - trained_at,
        "device_seconds": sum(seconds.values()) * shard.world,
        **used(stage, fingerprint=dataset.meta.fingerprint, weights=supervision.weights),
        "workers": shard.world,
        **runtime.provenance(),
        **provenance(device, recipe.precision),
    }
    if is_given:
        values["warning"] = _doubt(stage, dataset, {name: of_NC.argmax(dim=1) for name, of_NC in last_logits.items()})
    publish(stage, store, values, outputs=outputs, holds=holds)


def _doubt(stage: Trainable, dataset: Dataset, predicted: Mapping[str, torch.Tensor]) -> str | None:
    """What looks wrong with a given teacher, and what may be done: its classifier is from elsewhere. predicted: the
    classes of the plain images, by split."""
    if not predicted:
        return None
    labels_N = torch.cat([dataset.split(name).labels_N for name in predicted])
    doubt = fit_of(torch.cat([*predicted.values()]).numpy(), labels_N.numpy(), classes=dataset.meta.classes).doubt
    if doubt is None:
        return None
    spec = stage.data.dataset
    order = "give the order that it was trained with as dataset.classes, or dataset.class_order: natural (as in timm)"
    if spec.folder is None and spec.parquet is None:
        order = f"reorder the rows of its classifier as {spec.name} numbers its classes"
    images = f"{len(labels_N):,} images of {' and '.join(predicted)}"
    text = f"{doubt}, on {images}: {order}, and check its normalize and image_size"
    log.warning("stage %s: %s", stage.id, text)
    return text


def _load_checkpoint(
    stage: Trainable,
    store: Store,
    how: Mapping[str, str | None],
    shard: Shard,
    device: torch.device,
    model: nn.Module,
    beside: nn.Module,
    dataset: Dataset,
) -> TrainState | None:
    """Where to go on from; None to start from the beginning. The first worker reads for all: another launch could put
    another checkpoint in its place meanwhile."""
    path = f"{stage.folder}/{CHECKPOINT}"

    def read() -> bytes | None:
        try:
            # Most have none, and that takes an object store one request.
            return store.read(path) if store.exists(path) else None
        except FileNotFoundError:
            return None
        except OddFileError as error:
            log.warning("%s; the stage starts again", error.strerror)
            return None

    found = first_reads(read, shard, device)
    if found is None:
        return None
    try:
        state = state_from_bytes(found)
        # Older ones do not say of which images they are.
        found_how = {"dataset_fingerprint": how["dataset_fingerprint"], **state}
        other = [name for name, value in how.items() if not _is(found_how.get(name), value)]
        if not other:
            images, evaluated = len(dataset.train), dataset.evaluated
            return fitting_state(state, model, stage.recipe, beside=beside, images=images, evaluated=evaluated)
        reason = f"of another {' and '.join(other)}"
    except CheckpointError as error:
        reason = f"not to go on from: {' '.join(str(error).split())}"
    log.warning("%s: %s; the stage starts again", store.location(path), reason)
    return None


def _is(found: object, expected: str | None) -> bool:
    """Of a file's value, which may be a tensor that equals nothing in one word."""
    return type(found) is type(expected) and found == expected
