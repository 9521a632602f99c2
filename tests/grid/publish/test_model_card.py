"""Nothing that a record or a plan holds becomes markup of the card, nor an end of a line that is printed."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from markdown_it.token import Token

from grid.contract.record import FIELDS
from grid.publish.model_card import model_card
from grid.publish.publication import Choice, Facts, Known, MeanWithInterval
from grid.read.grid_file import spec_from_dict
from grid.store.records import make_record
from kd.models.onnx_file import OnnxFacts
from tests.conftest import tiny_grid

HOSTILE = "x` </code><iframe src=x>\n\n# Owned\n\n[a](javascript:b) ![i](x) &lt;b&gt; *c* ~~d~~\n```\n---\n|"
PLAIN = "plain"
MEAN = MeanWithInterval(n=2, mean=50.0, std=1.0, low=49.0, high=51.0)


def card(said: str, *, factory: str | None = None) -> tuple[Facts, str]:
    """Of a student whose record has `said` in each field of text, and whose plan has it in each label."""
    kind = {"name": "resnet18"} if factory is None else {"factory": "plain.py:net"}
    student = {"label": "S", "args": {"width": said}, **kind}
    teacher = {"label": "T", "name": "resnet18", "args": {"block": said}}
    spec = spec_from_dict(tiny_grid(students=[student], teachers=[teacher]), what="grid tiny")
    # As plans of before labels were checked may have them.
    (student_spec,), (teacher_spec,) = spec.students, spec.teachers
    labelled = {
        "students": (student_spec.model_copy(update={"label": f"S {said}", "factory": factory}),),
        "teachers": (teacher_spec.model_copy(update={"label": f"T {said}"}),),
    }
    spec = spec.model_copy(update=labelled)
    values: dict[str, Any] = {name: said for name, kind in FIELDS.items() if kind is str}
    values |= {name: 1.0 for name, kind in FIELDS.items() if kind is float}
    values |= {name: 1 for name, kind in FIELDS.items() if kind is int}
    values |= {"versions": json.dumps({said: said}), "recipe": json.dumps({"schedule": said, said: said})}
    record = make_record(values)
    choice = Choice(
        grid=said,
        spec={},
        stage_id=said,
        student=f"S {said}",
        teacher=f"T {said}",
        teacher_top1=0.5,
        teacher_parameters=10,
        seed=0,
        setting=f"the setting {said}",
        seed_why=f"seed 0 {said}",
        accuracy=MEAN,
        alone=MEAN,
        gain=MEAN,
        effect=None,
    )
    facts = Facts(
        choice=choice,
        record=record,
        known=Known.of(record),
        spec=spec,
        model=spec.students[0],
        base_model=said,
        input_size=(1, 8, 8),
        mean=[0.5],
        std=[0.5],
        interpolation="bicubic",
        labels=[said, "other"],
        weights_sha256="0" * 64,
        timm=False,
        build=f"model = {said!r}",
        files=[f"{said}.py"] if factory is not None else [],
        onnx=None,
    )
    return facts, model_card(facts)


def tokens(text: str) -> list[Token]:
    """All that the card holds below its front matter, inline too."""
    found = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text.partition("\n---\n")[2])
    return [inner for token in found for inner in (token, *(token.children or []))]


def headings(found: list[Token]) -> list[str]:
    return [after.content for token, after in itertools.pairwise(found) if token.type == "heading_open"]


def test_nothing_of_a_record_or_a_plan_is_markup() -> None:
    for factory in (None, f"{HOSTILE}.py:net"):
        plain, hostile = (tokens(card(said, factory=factory)[1]) for said in (PLAIN, HOSTILE))
        kinds = {token.type for token in hostile}
        assert not kinds & {"html_block", "html_inline", "link_open", "image", "s_open", "em_open", "hr"}
        assert kinds <= {token.type for token in plain} | {"text_special"}
        assert headings(hostile)[1:] == headings(plain)[1:]
        shown = "".join(token.content for token in hostile if token.type in ("text", "text_special", "code_inline"))
        assert shown.count("<iframe src=x>") >= 20


def test_the_control_has_markup_of_its_own() -> None:
    found = MarkdownIt("commonmark").parse(HOSTILE)
    assert {"heading_open", "inline", "fence"} <= {token.type for token in found}


def front_matter(text: str) -> Any:
    return yaml.safe_load(text.partition("\n---\n")[0].removeprefix("---\n"))


def test_the_title_is_on_one_line_and_the_front_matter_holds_any_name() -> None:
    facts, text = card(HOSTILE)
    assert "\n" not in facts.title
    front = front_matter(text)
    assert front["base_model"] == HOSTILE
    assert front["model-index"][0]["name"] == facts.title
    assert yaml.safe_load(ModelCard(text).data.to_yaml()) == front, "and the hub reads the same"


def test_the_front_matter_says_this_and_no_more() -> None:
    facts, text = card(PLAIN)
    result = {
        "task": {"type": "image-classification", "name": "Image Classification"},
        "dataset": {"name": "digits", "type": "digits", "split": "test"},
        "metrics": [{"type": "accuracy", "name": "Top-1 accuracy", "value": 1.0}],
    }
    always = {
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "knowledge-distillation", "kd-grid"],
        "datasets": ["digits"],
        "metrics": ["accuracy"],
        "model-index": [{"name": facts.title, "results": [result]}],
    }
    assert front_matter(text) == always | {"base_model": PLAIN}
    of_timm = replace(facts, base_model=None, timm=True, onnx=OnnxFacts(opset=18, difference=0.0, runtime="x"))
    tags = [*always["tags"], "timm", "onnx"]
    assert front_matter(model_card(of_timm)) == always | {"library_name": "timm", "tags": tags}


def test_ordinary_names_are_written_as_they_are() -> None:
    text = card("resnet_18d.ra2 (v1)")[1]
    assert "finished resnet_18d.ra2 (v1); its whole record is `record.json`" in text
    assert f"built with `{json.dumps({'width': 'resnet_18d.ra2 (v1)'})}`" in text
