"""`make bench` or `make bench JSON=file`: a table of ratios, each measured in one run."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

from kd.machine.measure import device_name
from tests.benchmarks.cluster import cell_overhead_s, grid_vs_ideal, start_to_first_cell_s
from tests.benchmarks.many_cells import cells_1000
from tests.benchmarks.memory import cell_extra_mb
from tests.benchmarks.tables import table_of_1000
from tests.benchmarks.training import (
    cached_vs_baseline,
    channels_last_vs_default,
    online_vs_baseline,
    pipeline_vs_tensors,
)
from tests.benchmarks.views import views_vs_dataloader

BENCHMARKS = (
    views_vs_dataloader,
    pipeline_vs_tensors,
    cached_vs_baseline,
    online_vs_baseline,
    channels_last_vs_default,
    grid_vs_ideal,
    start_to_first_cell_s,
    cell_overhead_s,
    cells_1000,
    cell_extra_mb,
    table_of_1000,
)


def main() -> None:
    parse = argparse.ArgumentParser(prog="make bench", description="Ratios, each measured in one run.")
    names = [benchmark.__name__ for benchmark in BENCHMARKS]
    parse.add_argument("only", nargs="*", metavar="NAME", help=f"run these alone: {', '.join(names)}")
    parse.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    args = parse.parse_args()
    unknown = sorted(set(args.only) - set(names))
    if unknown:
        parse.error(f"no benchmark {unknown[0]!r}; there are {', '.join(names)}")
    torch.set_num_threads(1)
    print(f"{device_name(torch.device('cpu'))} of {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}\n")
    print(f"{'ratio':<24}{'median':>8}  {'low to high':<18}unit")
    rows = []
    for benchmark in BENCHMARKS:
        if args.only and benchmark.__name__ not in args.only:
            continue
        for row in benchmark():
            rows.append(row.as_dict())
            print(f"{row.name:<24}{row.value:>8.2f}  {f'{row.low:.2f} to {row.high:.2f}':<18}{row.unit}", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
