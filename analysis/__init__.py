"""From records to tables: reads the storage alone, and imports neither the grid nor the learning.

From Python: `from analysis import load_grid`, and then what a grid gives, `load_grid("runs", "digits").gains()`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.errors import AnalysisError
    from analysis.notebook import load_grid, load_grids

__all__ = ["AnalysisError", "load_grid", "load_grids"]

# Where they come from, imported with the first that is asked for: polars takes its time.
_PLACES = {"AnalysisError": "analysis.errors", "load_grid": "analysis.notebook", "load_grids": "analysis.notebook"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
