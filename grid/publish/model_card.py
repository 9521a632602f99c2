"""The model card of a published student: README.md in the Hugging Face hub's format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from grid.contract.layout import RECORD
from grid.contract.markdown import code_block, code_span, escape_markdown
from grid.contract.record import Record
from grid.publish.model_usage import usage
from grid.publish.publication import Estimate, Facts
from kd.methods import method_of

# Where the hub has what the catalog knows.
HUB_DATASETS = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
IMAGES = {
    "digits": "scans of handwritten digits, 8 x 8 pixels, as scikit-learn's `load_digits` has them (its levels 0 to 16 "
    "spread over 0 to 255), light strokes on a dark ground",
    "cifar10": "CIFAR-10, 32 x 32 colour photographs",
    "cifar100": "CIFAR-100, 32 x 32 colour photographs, with its 100 fine classes",
}


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
        *_training(facts),
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
    lines.append(f"| **these weights**, seed {choice.seed} | **{_percent(facts.known.test_top1_last)}** |")
    lines.append(f"| mean of this setting over its seeds | {_shown(choice.accuracy, ' %')} |")
    if choice.alone is not None:
        lines.append(f"| the same student trained alone, mean over seeds | {_shown(choice.alone, ' %')} |")
    if choice.gain is not None:
        lines.append(f"| gain over training alone, paired by seed | {_shown(choice.gain, ' points', sign='+')} |")
    if choice.teacher_top1 is not None:
        lines.append(f"| the teacher | {_percent(choice.teacher_top1)} |")
    also = []
    if facts.spec.dataset.info.classes > 5 and record.test_top5_last is not None:
        also.append(f"top-5 {_percent(record.test_top5_last)}")
    for name, what in (("nll", "negative log-likelihood"), ("ece", "expected calibration error (15 bins)")):
        value = record.metric("test", name)
        if value is not None:
            also.append(f"{what} {value:.3f}")
    if record.test_agreement_last is not None:
        also.append(f"{_percent(record.test_agreement_last)} of the images get the teacher's class")
    notes = [f"{facts.spec.dataset.splits['test']:,} test images, at the last epoch."]
    if choice.accuracy.n > 1:
        notes.append("In brackets, Student's t intervals of 95 %.")
    if also:
        notes.append(f"These weights besides: {', '.join(also)}.")
    if record.precision not in (None, "float32"):
        precision = escape_markdown(record.precision)
        notes.append(f"Measured under {precision} autocast: in float32 a few images may come out otherwise.")
    if choice.gain is not None:
        notes.append(_verdict(choice.gain))
    why = f"Which weights these are: {escape_markdown(choice.setting)}; {escape_markdown(choice.seed_why)}."
    return ["\n".join(lines), " ".join(notes), why]


def _verdict(gain: Estimate) -> str:
    if gain.low is None or gain.high is None:
        return "One seed gives no interval: whether the difference is more than chance is unknown."
    if gain.low > 0:
        return "The gain is clear of chance: its interval is above 0."
    if gain.high < 0:
        return "Distillation made this student worse: the interval is below 0."
    return "The difference is not clear of chance: its interval includes 0."


def _training(facts: Facts) -> list[str]:
    choice, record, spec, dataset = facts.choice, facts.record, facts.spec, facts.spec.dataset
    splits = dataset.splits
    counts = ", ".join(f"{count:,} {split}" for split, count in splits.items() if count)
    drawn = f", drawn with seed {dataset.split_seed}" if dataset.info.test_images is None or splits["val"] else ""
    lines = [f"**Data:** {IMAGES.get(dataset.name, escape_markdown(dataset.name))}; {counts} images{drawn}."]
    if choice.teacher is not None:
        lines.append(f"**Teacher:** {_teacher(facts)}")
        online = record.targets == "online"
        seen = "the teacher ran beside the student." if online else "the teacher saw the very same views."
        lines.append(f"**Loss:** {_loss(record)}; {seen}")
    else:
        lines.append("**Loss:** cross-entropy with the labels; no teacher.")
    lines.append(f"**Start:** {_start(facts)}")
    recipe = yaml.safe_dump(_recipe(facts.known.recipe), sort_keys=False, default_flow_style=None, width=100)
    lines.append(f"**Recipe**, as a file of kd-grid has it:\n\n{code_block(recipe.strip(), 'yaml')}")
    seeds = ", ".join(map(str, spec.seeds))
    lines.append(f"Seeds of the experiment: {seeds}.")
    return lines


def _loss(record: Record) -> str:
    """Records of before there were several methods have no parameters but these."""
    of_kd = {"temperature": record.temperature, "alpha": record.alpha}
    try:
        params = json.loads(record.params) if record.params is not None else of_kd
        method = method_of(str(record.method), params)
    except (ValueError, TypeError):  # of another version of this program
        return f"method {code_span(record.method)} with {code_span(record.params)}"
    told = ", ".join(f"{name} = {value:g}" for name, value in method.params.items())
    return f"`{method.formula}` with {told} ({method.source})"


def _teacher(facts: Facts) -> str:
    choice = facts.choice
    model = next(model for model in facts.spec.teachers if model.shown == choice.teacher)
    known = [code_span(model.name) + (f" built with {code_span(json.dumps(model.args))}" if model.args else "")]
    if choice.teacher_parameters is not None:
        known.append(f"{choice.teacher_parameters:,} parameters")
    known.append("used as its checkpoint has it" if model.is_given else "trained on the same data")
    if model.pretrained:
        known.append("from timm's pretrained weights")
    if choice.teacher_top1 is not None:
        known.append(f"top-1 {_percent(choice.teacher_top1)} on the test split")
    return f"{escape_markdown(choice.teacher)}: {', '.join(known)}."


def _start(facts: Facts) -> str:
    if facts.base_model is not None:
        return f"timm's pretrained weights, {code_span(facts.base_model)}."
    if facts.model.pretrained:
        return f"timm's pretrained weights of {code_span(facts.model.name)}."
    if facts.model.checkpoint is not None:
        return f"a checkpoint of the experimenter's, sha256 {code_span(facts.model.checkpoint_sha256)}."
    return f"random weights, drawn from seed {facts.choice.seed}."


def _recipe(text: str) -> dict[str, Any]:
    """Without what is off, or has no effect."""
    recipe: dict[str, Any] = json.loads(text)
    if recipe.get("optimizer") != "sgd":
        recipe = {k: v for k, v in recipe.items() if k not in ("momentum", "nesterov")}
    if recipe.get("schedule") != "step":
        recipe = {k: v for k, v in recipe.items() if k not in ("step_epochs", "step_factor")}
    return _without_nothing(recipe)


def _without_nothing(values: dict[str, Any]) -> dict[str, Any]:
    inner = {k: _without_nothing(v) if isinstance(v, dict) else v for k, v in values.items()}
    return {k: v for k, v in inner.items() if v not in (None, False, 0, [], {})}


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


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _shown(of: Estimate, unit: str, *, sign: str = "") -> str:
    """'85.33 % [78.37, 92.29], n = 3'."""
    between = f" [{of.low:{sign}.2f}, {of.high:{sign}.2f}]" if of.low is not None and of.high is not None else ""
    return f"{of.mean:{sign}.2f}{unit}{between}, n = {of.n}"
