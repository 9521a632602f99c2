"""What a plan would cost, before anything runs: models counted on the meta device, and the dry run's tables."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from grid.contract.units import human, sized
from grid.errors import UserError
from grid.identity import canonical_json
from grid.plan import Plan, Stage
from grid.plan.schedule import unneeded_stages
from grid.read.datasets import described
from grid.spec.model import ModelSpec
from grid.work.models import check_checkpoint, facts_of
from kd.checkpoint import CheckpointError
from kd.models.build import ModelError, ModelFacts, check_pretrained


def inspect_models(plan: Plan) -> dict[str, ModelFacts]:
    """Facts of the grid's models by axis and label. Raises UserError for one that cannot be built or fed."""
    spec = plan.spec
    models: dict[str, ModelFacts] = {}
    for axis, entries in (("teachers", spec.teachers), ("students", spec.students)):
        for i, model in enumerate(entries):
            try:
                models[f"{axis}/{model.shown}"] = facts_of(model, spec.dataset)
                if model.checkpoint is not None:
                    check_checkpoint(model, spec.dataset)
                if model.pretrained:
                    check_pretrained(model.name)
            except (ModelError, CheckpointError) as error:
                raise UserError(f"grid {spec.name}: {axis}.{i}: {error}") from None
    return models


def stage_costs(plan: Plan, facts: dict[str, ModelFacts]) -> dict[str, float]:
    """Multiply-adds of each stage that computes on a model, by stage id: training, or logits of every view; a given
    teacher is only evaluated."""
    macs = _macs(plan, facts)
    costs = {stage.id: stage.multiply_adds(lambda model: macs[_key(model)]) for stage in plan.stages}
    return {stage_id: cost for stage_id, cost in costs.items() if cost}


def saved_by_cache(plan: Plan, facts: dict[str, ModelFacts], costs: dict[str, float]) -> float:
    """Multiply-adds of teachers in every distilled cell, less those of computing their logits once."""
    macs, images = _macs(plan, facts), plan.data.dataset.splits["train"]
    cached = [cell for cell in plan.cells if cell.logits is not None and cell.teacher is not None]
    online = sum(macs[_key(c.teacher.model)] * images * c.recipe.epochs for c in cached if c.teacher)
    return online - sum(costs[stage.id] for stage in plan.logits)


def stage_bytes(plan: Plan, facts: dict[str, ModelFacts]) -> dict[str, int]:
    """What each stage leaves on the storage, to some per cent, by its id: images, logits, weights, predictions, and
    what is told of them."""
    models, predictions = _by_model(plan, facts), predictions_bytes(plan)
    return {
        stage.id: stage.bytes_left(lambda model: models[_key(model)].size_bytes) + predictions[stage.id]
        for stage in plan.stages
    }


def predictions_bytes(plan: Plan) -> dict[str, int]:
    """Of each stage's, by its id, those of its predictions."""
    is_kept = plan.spec.resources.keep_predictions
    return {stage.id: stage.predictions_bytes if is_kept else 0 for stage in plan.stages}


def _macs(plan: Plan, facts: dict[str, ModelFacts]) -> dict[str, int]:
    return {key: fact.macs for key, fact in _by_model(plan, facts).items()}


def _by_model(plan: Plan, facts: dict[str, ModelFacts]) -> dict[str, ModelFacts]:
    """Whatever a grid calls it: a stage that several entries share has the label of the first."""
    spec = plan.spec
    named = [(f"teachers/{m.shown}", m) for m in spec.teachers] + [(f"students/{m.shown}", m) for m in spec.students]
    return {_key(model): facts[name] for name, model in named}


def _key(model: ModelSpec) -> str:
    return canonical_json({**model.architecture, "image_size": model.image_size})


def print_plan(plan: Plan, done: set[str], facts: dict[str, ModelFacts], console: Console, *, images: str = "") -> None:
    """The dry run: pairs, stages by kind, what is done and what would run. images: a word on where they are."""
    finished = done | unneeded_stages(plan, done)
    spec = plan.spec
    console.print(f"Grid {spec.name}: {spec.description}".rstrip(": "), markup=False)
    for line in described(spec.dataset):
        console.print(line, markup=False)
    if images:
        console.print(images, markup=False, highlight=False)
    console.print(f"Seeds {list(spec.seeds)}\n", markup=False)

    models = _table("Model", "Role", "Parameters", "Size (MiB)", "MACs")
    for name, fact in facts.items():
        role, label = name.split("/", 1)
        size = f"{fact.size_bytes / 2**20:.2f}"
        parameters, macs = human(fact.parameters), human(fact.macs, billion="G")
        models.add_row(escape(label), role.removesuffix("s"), parameters, size, macs)
    console.print(models)
    console.print()

    if "distilled" in spec.modes:
        pairs = _table("Teacher", "Student", "Compression")
        for teacher in spec.teachers:
            for student in spec.students:
                big, small = facts[f"teachers/{teacher.shown}"], facts[f"students/{student.shown}"]
                ratio = f"{big.parameters / small.parameters:.1f}x"
                pairs.add_row(escape(teacher.shown), escape(student.shown), ratio)
        console.print(pairs)
        console.print()

    titles = plan.titles()
    stages = _table("Stage", "Kind", "What", "State")
    for stage in plan.stages:
        stages.add_row(stage.id, stage.called, escape(titles[stage.id]), _state(stage, done, finished))
    console.print(stages)
    console.print()

    counts = Counter(stage.called for stage in plan.stages)
    left = Counter(stage.called for stage in plan.stages if stage.id not in finished)
    costs = stage_costs(plan, facts)
    work = 2 * sum(cost for stage, cost in costs.items() if stage not in finished)
    saved = 2 * saved_by_cache(plan, facts, costs)
    summary = ", ".join(f"{count} {kind} ({left[kind]} to run)" for kind, count in counts.items())
    console.print(f"{len(plan.stages)} stages: {summary}", markup=False)
    console.print(f"Work to do: {_flops(work)}" if work else "Nothing to do: everything is done already")
    if work:
        room, predictions = (
            sum(size for stage, size in of.items() if stage not in finished)
            for of in (stage_bytes(plan, facts), predictions_bytes(plan))
        )
        shown = f", {sized(predictions)} of it for predictions" if predictions else ""
        console.print(f"Room on the storage: some {sized(room)}{shown}", markup=False)
    if saved > 0:
        console.print(f"Cached teacher logits save {_flops(saved)} of the whole grid against the teacher online")


def _flops(count: float) -> str:
    return f"{human(count, billion='G')}FLOPs"


def _table(*columns: str) -> Table:
    numbers = ("Parameters", "Size (MiB)", "MACs", "Compression")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in columns:
        # Folded, for a cut id or label may stand for several.
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return table


def _state(stage: Stage, done: set[str], finished: set[str]) -> str:
    if stage.id in done:
        return "done"
    return "not needed" if stage.id in finished else "to run"
