"""The dry run: what a launch would do, told before anything runs."""

from __future__ import annotations

import sys
from typing import cast

from grid.contract.terminal import Lasting, tell
from grid.contract.text import on_one_line
from grid.plan import Plan, make_plan
from grid.store.probe import check_readable
from grid.store.standing import look
from grid.store.store import Store
from grid.watch.console import console_on
from grid.watch.planned import images_of_last_launch
from grid.watch.preview import inspect_models, print_plan


def dry_run(plan: Plan, store: Store) -> None:
    """Of images that nothing says the place of, those of the grid's last launch are meant: ids depend on the images."""
    check_readable(store)
    images = ""
    if plan.spec.dataset.is_downloaded:
        then = images_of_last_launch(plan.spec, store)
        if then is None:
            images = "Its images would be downloaded. Give --data here, too, if it will be launched with it: ids differ"
        elif then.place is not None:
            plan = make_plan(plan.spec.model_copy(update={"dataset": then}))
            images = f"Its images are those of its last launch on this storage, in {on_one_line(then.place)}"
    stands = look(plan, store)
    for line in stands.lines:
        tell(f"warning: {line}", sys.stderr)
    console = console_on(sys.stdout)
    print_plan(plan, set(stands.done), inspect_models(plan), console, images=images)
    cast("Lasting", console.file).check()
