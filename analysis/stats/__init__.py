"""Statistics of replicates, apart from any table: of one pair, of many pairs tested at once, and over all pairs."""

from analysis.stats.multiple import holm
from analysis.stats.paired import (
    CONFIDENCE,
    MeanWithInterval,
    effect,
    p_paired_t,
    p_sign_flip,
    paired_gains,
    show_spread,
    summarize,
)
from analysis.stats.resampling import (
    RESAMPLES,
    FigureWithInterval,
    bootstrap_intervals,
    interquartile_mean,
    probability_of_improvement,
)

__all__ = [
    "CONFIDENCE",
    "RESAMPLES",
    "FigureWithInterval",
    "MeanWithInterval",
    "bootstrap_intervals",
    "effect",
    "holm",
    "interquartile_mean",
    "p_paired_t",
    "p_sign_flip",
    "paired_gains",
    "probability_of_improvement",
    "show_spread",
    "summarize",
]
