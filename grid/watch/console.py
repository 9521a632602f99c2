"""The terminal as rich writes to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from grid.contract.terminal import Lasting
from grid.contract.text import shown_on


def console_on(file: TextIO) -> Console:
    """A console that wraps to the terminal, and never wraps what is piped. It sends its own styles, and nothing that
    what it shows would have the terminal do, or that the terminal's encoding does not have."""

    class Shown(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(shown_on(file, text), **how)  # before it is measured: tables stay aligned

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                # A control segment is rich's own: where the cursor goes.
                yield segment if segment.control else segment._replace(text=shown_on(file, segment.text))

    # A notebook is told lines, as a pipe is: rich would take it for a page, and its FORCE_COLOR for a terminal.
    piped: dict[str, Any] = {} if file.isatty() else {"width": 10_000, "soft_wrap": True, "force_terminal": False}
    lasting = cast("TextIO", Lasting(file))
    return Shown(file=lasting, emoji=False, force_jupyter=False, **piped)  # :x: in a name is no emoji
