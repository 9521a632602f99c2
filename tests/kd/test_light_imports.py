from __future__ import annotations

import subprocess
import sys


def test_recipes_and_the_catalog_cost_no_heavy_import() -> None:
    code = (
        "import sys, kd, kd.recipe, kd.data.catalog; "
        "print(*{'torch', 'timm', 'numpy', 'sklearn', 'ray', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
