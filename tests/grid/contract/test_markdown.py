"""What others have written is shown as it is: markdown takes none of it for markup."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from grid.contract.markdown import code_block, code_span, escape_markdown

TEXTS = [
    "<iframe src=x>",
    "`a` ``b``",
    "``",
    "` a",
    "[a](javascript:x) ![i](x)",
    "[a]: http://x",
    "*a* **b** _c_ ~~d~~ &lt; &#60; a|b",
    "# Heading",
    "1. one",
    "- one",
    "snake_case and R & D",
    "a\\b",
]


def shown(markdown: str) -> list[tuple[str, str]]:
    """The kinds of what a paragraph holds, with their text."""
    opened, inline, closed = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    assert (opened.type, closed.type) == ("paragraph_open", "paragraph_close")
    return [(child.type, child.content) for child in inline.children or []]


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_text(text: str) -> None:
    parts = shown(escape_markdown(text))
    assert {kind for kind, _ in parts} <= {"text", "text_special"}
    assert "".join(content for _, content in parts) == text


@pytest.mark.parametrize("text", TEXTS)
def test_code_is_code_whatever_backticks_it_has(text: str) -> None:
    assert shown(f"a {code_span(text)} b") == [("text", "a "), ("code_inline", text), ("text", " b")]


def test_all_of_it_is_on_one_line() -> None:
    assert escape_markdown("a\n\n# b\u2028c\r") == "a # b c"
    assert code_span("a\n\n# b\u2028c\r") == "`a # b c`"


def test_no_fence_in_a_block_ends_it() -> None:
    text = "a: |\n```\n# b\n````\n<b>"
    (block,) = MarkdownIt().parse(code_block(text, "yaml"))
    assert (block.type, block.info, block.content) == ("fence", "yaml", f"{text}\n")
    assert code_block("a", "python") == "```python\na\n```"
