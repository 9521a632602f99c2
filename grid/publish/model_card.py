"""The model card of a published student: README.md in the Hugging Face hub's format."""

from __future__ import annotations

import json
from collections.abc import Sequence

from huggingface_hub import EvalResult, ModelCardData

from grid.contract.files.layout import RECORD
from grid.contract.markdown import code_span, escape_markdown
from grid.publish.model_training import training
from grid.publish.model_usage import usage
from grid.publish.publication import Facts, MeanWithInterval, percent

# Where the hub has what the catalog knows.
HUB_DATASETS = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}


def model_card(facts: Facts) -> str:
    sections = [
        f"---\n{front_matter(facts).to_yaml()}\n---",
        f"# {escape_markdown(facts.title)}",
        _what(facts),
        "## Accuracy",
        *_accuracy(facts),
        "## How to use it",
        *usage(facts),
        "## Training",
        *training(facts),
        "## Cost",
        _bullets(_cost(facts)),
        "## Provenance",
        _bullets(_provenance(facts)),
    ]
    return "\n\n".join(sections) + "\n"


def front_matter(facts: Facts) -> ModelCardData:
    """Accuracy is a fraction, as the record has it."""
    name = facts.spec.dataset.name
    hub = HUB_DATASETS.get(name, name)
    tags = ["image-classification", "knowledge-distillation", "kd-grid"]
    result = EvalResult(
        task_type="image-classification",
        task_name="Image Classification",
        dataset_type=hub,
        dataset_name=name,
        dataset_split="test",
        metric_type="accuracy",
        metric_name="Top-1 accuracy",
        metric_value=facts.known.test_top1_last,
    )
    return ModelCardData(
        library_name="timm" if facts.timm else None,
        pipeline_tag="image-classification",
        tags=[*tags, *(["timm"] if facts.timm else []), *(["onnx"] if facts.onnx else [])],
        datasets=[hub],
        metrics=["accuracy"],
        base_model=facts.base_model,
        model_name=facts.title,
        eval_results=[result],
    )


def _what(facts: Facts) -> str:
    choice, dataset = facts.choice, facts.spec.dataset
    architecture = ("timm's " if facts.timm else "") + code_span(facts.model.name)
    changed = f" built with {code_span(json.dumps(facts.model.args))}" if facts.model.args else ""
    taught = f", trained to imitate the larger {escape_markdown(choice.teacher)}" if choice.teacher is not None else ""
    if choice.teacher is not None and not (choice.teacher_parameters or 0) > facts.known.parameters:
        taught = taught.replace("larger ", "")
    return (
        f"An image classifier for the {dataset.info.classes} classes of {escape_markdown(dataset.name)}: {architecture}"
        f"{changed}, {facts.known.parameters:,} parameters{taught}. It was trained to measure what distillation "
        f"gives, as one of the students of the experiment {code_span(choice.grid)} (kd-grid). Nothing is known of how "
        "it does on images other than those it was tested on."
    )


def _accuracy(facts: Facts) -> list[str]:
    choice, record = facts.choice, facts.record
    lines = ["| On the test split | Top-1 |", "| --- | --- |"]
    lines.append(f"| **these weights**, seed {choice.seed} | **{percent(facts.known.test_top1_last)}** |")
    lines.append(f"| mean of this setting over its seeds | {_shown(choice.accuracy, ' %')} |")
    if choice.alone is not None:
        lines.append(f"| the same student trained alone, mean over seeds | {_shown(choice.alone, ' %')} |")
    if choice.gain is not None:
        lines.append(f"| gain over training alone, paired by seed | {_shown(choice.gain, ' points', sign='+')} |")
    if choice.teacher_top1 is not None:
        lines.append(f"| the teacher | {percent(choice.teacher_top1)} |")
    also = []
    if facts.spec.dataset.info.classes > 5 and record.test_top5_last is not None:
        also.append(f"top-5 {percent(record.test_top5_last)}")
    for name, what in (("nll", "negative log-likelihood"), ("ece", "expected calibration error (15 bins)")):
        value = record.metric("test", name)
        if value is not None:
            also.append(f"{what} {value:.3f}")
    if record.test_agreement_last is not None:
        also.append(f"{percent(record.test_agreement_last)} of the images get the teacher's class")
    notes = [f"{facts.spec.dataset.splits['test']:,} test images, at the last epoch."]
    if choice.accuracy.n > 1:
        notes.append("In brackets, Student's t intervals of 95 %.")
    if also:
        notes.append(f"These weights besides: {', '.join(also)}.")
    if record.precision not in (None, "float32"):
        precision = escape_markdown(record.precision)
        notes.append(f"Measured under {precision} autocast: in float32 a few images may come out otherwise.")
    if choice.gain is not None:
        notes.append(_verdict(choice.gain, choice.effect))
    why = f"Which weights these are: {escape_markdown(choice.setting)}; {escape_markdown(choice.seed_why)}."
    return ["\n".join(lines), " ".join(notes), why]


def _verdict(gain: MeanWithInterval, effect: str | None) -> str:
    if gain.low is None or gain.high is None:
        return "Without an interval, whether the difference is more than chance is unknown."
    if effect == "gain":
        return "The gain is significant, after correction for all pairs of the experiment."
    if effect == "negative transfer":
        return "Distillation made this student worse, significantly after correction for all pairs of the experiment."
    return "The difference is not significant, after correction for all pairs of the experiment."


def _cost(facts: Facts) -> list[str]:
    known, record = facts.known, facts.record
    lines = [
        f"{known.parameters:,} parameters; {known.size_bytes / 2**20:.2f} MiB with its buffers",
        f"{known.macs:,} multiply-adds an image, by torch's flop counter",
    ]
    if record.latency_ms is not None:
        spread = f" (quartiles {record.latency_ms_q1:.2f} and {record.latency_ms_q3:.2f})"
        lines.append(
            f"{record.latency_ms:.2f} ms a batch of {record.latency_batch}, median{spread}, on "
            f"{escape_markdown(record.latency_device)}, beside whatever else that machine ran"
        )
    return lines


def _provenance(facts: Facts) -> list[str]:
    record = facts.record
    versions = json.loads(record.versions or "{}")
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    how = [escape_markdown(record.device), escape_markdown(record.precision)]
    how += ["deterministic" if record.deterministic else "not deterministic"]
    weights = record.weights_sha256
    lines = [
        f"stage {code_span(record.stage_id)} of the grid {code_span(facts.choice.grid)}, finished "
        f"{escape_markdown(record.finished_at)}; its whole record is `{RECORD}`",
        f"computed from data set {code_span(facts.known.dataset_id)}"
        + (f" and teacher {code_span(record.teacher_id)}" if record.teacher_id else "")
        + f"; sha256 of the images, labels and splits: {code_span(facts.known.dataset_fingerprint)}",
        f"code: kd-grid {escape_markdown(record.code_version)}; {escape_markdown(packages)}",
        f"trained on {', '.join(how)}",
        f"`model.safetensors`: sha256 `{facts.weights_sha256}`"
        + (f"; the same tensors as on the record, {code_span(weights)}" if weights else ""),
    ]
    if facts.onnx is not None:
        lines.append(
            f"`model.onnx`: opset {facts.onnx.opset}; on random input no logit differs from torch's by more than "
            f"{facts.onnx.difference:.1g} ({facts.onnx.runtime})"
        )
    return lines


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _shown(of: MeanWithInterval, unit: str, *, sign: str = "") -> str:
    """'85.33 % [78.37, 92.29], n = 3'."""
    between = f" [{of.low:{sign}.2f}, {of.high:{sign}.2f}]" if of.low is not None and of.high is not None else ""
    return f"{of.mean:{sign}.2f}{unit}{between}, n = {of.n}"
