"""`python -m tests.chaos --kills 30 --seed 1`: exit status 0 if everything was as it should be."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from grid.cluster.retries import TRIES
from grid.private import PLACE, private_folder
from tests.chaos.balloon import limit
from tests.chaos.campaign import NODES, Campaign
from tests.chaos.outage import through_outages
from tests.ray_cluster import ENVIRONMENT, RayCluster


def main() -> int:
    parse = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parse.add_argument("--kills", type=int, default=12, help="faults in all (default: 12)")
    parse.add_argument("--seed", type=int, default=0, help="of their kinds and moments (default: 0)")
    parse.add_argument("--s3", action="store_true", help="the grid once more, on an S3 with outages")
    parse.add_argument("--grid", default="digits")
    parse.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parse.parse_args()
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", flush=True)

    os.environ.pop("RAY_ADDRESS", None)
    os.environ.update(ENVIRONMENT)
    folder = Path(tempfile.mkdtemp(prefix="kd-chaos-"))
    say(f"grid {args.grid} on {NODES} nodes, {args.kills} faults, seed {args.seed}; output in {folder}")
    memory = limit()
    if memory is None:
        say("no memory is taken: too little of this machine's is free")
    else:
        os.environ.update(RAY_memory_usage_threshold=f"{memory:.4f}")
    os.environ[PLACE] = str(private_folder(folder / "own"))
    say(f"a stage loses its worker {TRIES - 1} times in a launch at most: then it would have failed for good")
    with RayCluster() as cluster:
        for _ in range(NODES):
            cluster.add_node(cpus=1)
        chance = random.Random(args.seed)
        campaign = Campaign(
            args.grid, args.overrides, cluster=cluster, folder=folder, chance=chance, memory=memory, say=say
        )
        try:
            expected = campaign.undisturbed()
            tally = campaign.run(args.kills, expected)
        finally:
            campaign.end()
    if args.s3:
        tally.problems += through_outages(args.grid, args.overrides, folder, expected, say)
    print("\n" + "\n".join(tally.lines()))
    print(f"{'As it should be' if not tally.problems else 'FAILED'}, after {time.monotonic() - started:.0f} s.")
    if not tally.problems:
        shutil.rmtree(folder)
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())
