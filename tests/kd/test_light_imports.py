"""`kd` stands alone: planning a grid costs no heavy import, and learning knows nothing of what runs it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import kd

SOURCES = sorted(Path(kd.__file__).parent.rglob("*.py"))


def test_planning_costs_no_heavy_import() -> None:
    code = (
        "import sys, kd, kd.recipe, kd.data.catalog; "
        "print(*{'torch', 'timm', 'numpy', 'sklearn', 'ray', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_nothing_in_kd_imports_the_grid_ray_or_a_tracker() -> None:
    assert len(SOURCES) > 15
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"grid", "analysis", "launch", "ray", "wandb", "mlflow"}, path
