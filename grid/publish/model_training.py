"""How a published student was trained, as the section of its card: data, teacher, loss, start, recipe."""

from __future__ import annotations

import json
from typing import Any

import yaml

from grid.contract.markdown import code_block, code_span, escape_markdown
from grid.contract.record import Record
from grid.publish.publication import Facts, percent
from kd.methods import method_of

IMAGES = {
    "digits": "scans of handwritten digits, 8 x 8 pixels, as scikit-learn's `load_digits` has them (its levels 0 to 16 "
    "spread over 0 to 255), light strokes on a dark ground",
    "cifar10": "CIFAR-10, 32 x 32 colour photographs",
    "cifar100": "CIFAR-100, 32 x 32 colour photographs, with its 100 fine classes",
}


def training(facts: Facts) -> list[str]:
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
        known.append(f"top-1 {percent(choice.teacher_top1)} on the test split")
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
