"""What each model costs, and what it gives for that."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from analysis.measures.efficiency import efficiency
from analysis.measures.gains import gains
from analysis.read.load import load_grid
from analysis.tables.models import digits, models_section
from grid.store.records import Value
from tests.analysis.conftest import SyntheticGrid
from tests.analysis.reading import section

Maker = Callable[..., SyntheticGrid]


def cost(ms: float, *, size_bytes: int, macs: int, device: str = "CPU", runs: int | None = 100) -> dict[str, Value]:
    times: dict[str, Value] = {"latency_ms": ms, "latency_ms_q1": ms - 0.5, "latency_ms_q3": ms + 1.0}
    place: dict[str, Value] = {"latency_batch": 32, "latency_device": device, "latency_runs": runs}
    return {"size_bytes": size_bytes, "macs": macs, **times, **place}


BIG = cost(20.0, size_bytes=4 * 2**20, macs=16_850_000_000)
SMALL = cost(5.0, size_bytes=2**19, macs=3_990_144)


def costed(grid: SyntheticGrid) -> SyntheticGrid:
    grid.costs = {"ViT-T": BIG, "ResNet-S": SMALL}
    return grid.fill({"ViT-T": 90.0, ("ResNet-S", None): [79.0, 80.0, 81.0], ("ResNet-S", "ViT-T"): [80.0, 81.0, 82.0]})


def section_of(grid: SyntheticGrid) -> str:
    found = load_grid(grid.storage, grid.name)
    return section(models_section(found, gains(found)))


def models_of(storage: str) -> pl.DataFrame:
    found = load_grid(storage)
    return efficiency(found, gains(found))


def lines_of(text: str) -> list[list[str]]:
    """The cells of the table's lines, without header and rule."""
    return [[c.strip() for c in line.split(" | ")] for line in text.split("\n") if line.startswith("| ")][2:]


def test_a_row_a_model_and_mode(make_grid: Maker) -> None:
    rows = models_of(costed(make_grid()).storage).to_dicts()
    names = ("model", "mode", "teacher", "temperature", "accuracy_n", "parameters", "size_mib", "macs")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("ViT-T", None, None, None, 1, 10_000, 4.0, 16_850_000_000),
        ("ResNet-S", "baseline", None, None, 3, 1_000, 0.5, 3_990_144),
        ("ResNet-S", "distilled", "ViT-T", 4.0, 3, 1_000, 0.5, 3_990_144),
    ]
    assert [row["accuracy_percent"] for row in rows] == pytest.approx([90.0, 80.0, 81.0])
    assert [row["retention_percent"] for row in rows] == [None, None, pytest.approx(90.0)]
    assert [row["latency_ms"] for row in rows] == [20.0, 5.0, 5.0]
    assert [row["throughput"] for row in rows] == pytest.approx([1600, 6400, 6400])  # 32 images in 20 and 5 ms
    assert [row["percent_per_ms"] for row in rows] == pytest.approx([4.5, 16.0, 16.2])
    assert [row["percent_per_mib_ms"] for row in rows] == pytest.approx([1.125, 32.0, 32.4])


def test_the_table_and_its_notes(make_grid: Maker) -> None:
    assert section_of(costed(make_grid())) == (
        "#### Models\n\n"
        "| Model    | Trained      |    Accuracy | Retention | Parameters | Size (MiB) |  MACs |         ms per batch "
        "| Images/s | Accuracy / ms | Accuracy / (MiB x ms) |\n"
        "| -------- | ------------ | ----------: | --------: | ---------: | ---------: | ----: | -------------------: "
        "| -------: | ------------: | --------------------: |\n"
        "| ViT-T    | as a teacher |       90.00 |         — |      10.0K |       4.00 | 16.9G | 20.00 [19.50, 21.00] "
        "|    1,600 |          4.50 |                  1.12 |\n"
        "| ResNet-S | alone        | 80.00 (n=3) |         — |       1.0K |       0.50 |  4.0M |    5.00 [4.50, 6.00] "
        "|    6,400 |         16.00 |                 32.00 |\n"
        "| ResNet-S | from ViT-T   | 81.00 (n=3) |    90.0 % |       1.0K |       0.50 |  4.0M |    5.00 [4.50, 6.00] "
        "|    6,400 |         16.20 |                 32.40 |\n\n"
        "Accuracy as above, mean over seeds. Size: parameters and buffers. MACs: multiply-adds of one image.\n\n"
        "ms per batch: a forward pass of 32 images on CPU, in float32; median [quartiles] of 100 batches, and of that "
        "the median over the model's records. It was measured in the process of each cell, beside whatever else the "
        "machine ran."
    )


def test_a_models_time_is_the_median_over_all_of_its_records(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0, 1])
    cells = grid.find(kind="cell")  # of both modes: they are one architecture
    for row, ms in zip(cells, (4.0, 9.0, 5.0, 6.0), strict=True):
        grid.done(row, 80.0, **cost(ms, size_bytes=1, macs=1, runs=int(10 * ms)))
    _, alone, taught = models_of(grid.storage).to_dicts()
    for row in (alone, taught):
        times = [row[name] for name in ("latency_ms", "latency_ms_q1", "latency_ms_q3")]
        assert times == pytest.approx([5.5, 5.0, 6.5])
    assert "median [quartiles] of 40 to 90 batches" in section_of(grid)


def test_records_of_several_devices_are_not_mixed(make_grid: Maker) -> None:
    grid = make_grid()
    grid.done(grid.one(kind="teacher"), 90.0, **BIG)
    devices = ["CPU", "GPU a_b", "CPU", "CPU", "GPU a_b", "CPU"]
    for row, device in zip(grid.find(kind="cell"), devices, strict=True):
        ms = 5.0 if device == "CPU" else 0.5
        grid.done(row, 80.0, **cost(ms, size_bytes=1, macs=1, device=device))
    frame = models_of(grid.storage)
    assert frame["latency_ms"].to_list() == [20.0, 5.0, 5.0]
    text = section_of(grid)
    assert (
        "**Several devices**: ResNet-S stands here with 32 images on CPU (records: 4); left out: "
        "32 images on GPU a_b (records: 2)." in text
    )
    assert "Not comparable" not in text


def test_models_of_a_grid_are_timed_on_one_device_where_they_can_be(make_grid: Maker) -> None:
    grid = make_grid(students=["A-S", "B-S"], modes=["baseline"])
    # B was timed once more on the GPU, but A, and most of the grid, on the CPU.
    for student, devices in (("A-S", ["CPU", "CPU", "CPU"]), ("B-S", ["GPU", "CPU", "GPU"])):
        for row, device in zip(grid.find(student=student), devices, strict=True):
            grid.done(row, 80.0, **cost(5.0, size_bytes=1, macs=1, device=device))
    assert models_of(grid.storage)["latency_device"].to_list() == ["CPU", "CPU"]


def test_models_that_were_timed_on_different_devices_are_said_not_to_compare(make_grid: Maker) -> None:
    grid = make_grid()
    grid.costs = {"ViT-T": BIG | {"latency_device": "GPU"}, "ResNet-S": SMALL}
    grid.fill({"ViT-T": 90.0, ("ResNet-S", None): [79.0, 80.0, 81.0]})
    text = section_of(grid)
    assert "ms per batch: a forward pass of 32 images on CPU, in float32; " in text
    assert "**Not comparable**: ResNet-S with 32 images on CPU; ViT-T with 32 images on GPU." in text


def test_older_records_have_no_number_of_batches(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0])
    for row in grid.rows:
        grid.done(row, 80.0, **cost(4.0, size_bytes=1, macs=1, runs=None))
    assert "median [quartiles] of the batches, and" in section_of(grid)
    assert models_of(grid.storage)["throughput"].to_list() == [8000.0] * 3


def test_records_without_a_time_have_no_scores(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0])
    for row in grid.rows:
        grid.done(row, 80.0, size_bytes=429_256)
    text = section_of(grid)
    assert lines_of(text)[1][2:] == ["80.00 (n=1)", "—", "1.0K", "0.41", "—", "—", "—", "—", "— |"]
    assert "ms per batch:" not in text


def test_an_unfinished_grid_shows_what_is_known(make_grid: Maker) -> None:
    grid = make_grid()
    assert section_of(grid) == ""
    grid.costs = {"ResNet-S": SMALL}
    grid.fill({("ResNet-S", None): [79.0, None, None]})
    small = ["1.0K", "0.50", "4.0M", "5.00 [4.50, 6.00]", "6,400"]
    assert lines_of(section_of(grid)) == [
        ["| ViT-T", "as a teacher", *["—"] * 8, "— |"],
        ["| ResNet-S", "alone", "79.00 (n=1)", "—", *small, "15.80", "31.60 |"],
        ["| ResNet-S", "from ViT-T", "—", "—", *small, "—", "— |"],
    ]


def test_a_failed_cell_is_not_counted(make_grid: Maker) -> None:
    grid = make_grid(seeds=[0], modes=["baseline"])
    row = grid.rows[0]
    grid.write(f"{grid.folder(row)}/failure.json", grid.record(row, status="failed", **SMALL))
    assert models_of(grid.storage)["latency_ms"].to_list() == [None]


def test_a_name_may_be_a_teachers_and_a_students(make_grid: Maker) -> None:
    grid = make_grid(teachers=["Net"], students=["Net"], seeds=[0])
    grid.done(grid.one(kind="teacher"), 90.0, **BIG)
    grid.done(grid.one(mode="baseline"), 80.0, **SMALL)
    assert models_of(grid.storage)["latency_ms"].to_list() == [20.0, 5.0, 5.0]


def test_of_crossed_settings_what_validation_selects_has_a_row_named_by_what_varies(make_grid: Maker) -> None:
    grid = make_grid(teachers=["a|b_T"], seeds=[0], temperature=[1.0, 4.0], val_size=10)
    grid.costs = {"ResNet-S": SMALL}
    for row in grid.rows:
        grid.done(row, 80.0)
    untaught = [[r"| a\|b_T", "as a teacher"], ["| ResNet-S", "alone"]]
    assert [line[:2] for line in lines_of(section_of(grid))] == untaught
    for row, val in zip(grid.find(mode="distilled"), (0.6, 0.7), strict=True):
        grid.done(row, 80.0, val_top1_last=val)
    taught = ["| ResNet-S", r"from a\|b_T, temperature 4"]
    assert [line[:2] for line in lines_of(section_of(grid))] == [*untaught, taught]
    assert "what validation selects is shown" in section_of(grid)


@pytest.mark.parametrize(
    ("figure", "text"), [(None, "—"), (0.0, "0.00"), (17.376, "17.38"), (0.1, "0.10"), (0.04194, "0.042")]
)
def test_scores_keep_two_digits(figure: float | None, text: str) -> None:
    assert digits(figure) == text
