"""The table of what grids took."""

from __future__ import annotations

from analysis.document import Heading, Note, Part, Table
from analysis.measures.costs import costs, saved_hours
from analysis.read.grids import Records
from analysis.shown import UNKNOWN
from grid.contract.units import shown_hours


def costs_section(records: Records) -> list[Part]:
    """The table of costs; nothing where nothing is known of them."""
    frame = costs(records)
    if not frame["device_hours"].sum():
        return []
    lines = [
        [
            row["stage"],
            f"{row['done']} of {row['planned']}",
            shown_hours(row["device_hours"]),
            UNKNOWN if row["share"] is None else f"{100 * row['share']:.0f} %",
            row["device"] or UNKNOWN,
        ]
        for row in frame.iter_rows(named=True)
    ]
    header = ["Stages", "Done", "Device time", "Share", "Device"]
    parts: list[Part] = [Heading("Costs"), Table("costs", frame, header, lines, [False, True, True, True, False])]
    saved = saved_hours(records)
    note = (
        "Device time: of training, evaluation and inference, a worker's seconds each; starting processes is not in it. "
        "What another grid had computed already counts in full."
    )
    if saved > 0:
        note += f" Teacher logits computed once saved at least {shown_hours(saved)}."
    return [*parts, Note(note)]
