"""What a user can act on."""

from __future__ import annotations


class AnalysisError(Exception):
    """Nothing to analyse, or something unreadable: one line that names it and the way out."""
