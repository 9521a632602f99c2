"""Statistics of replicates, apart from any table: of one pair, of many pairs tested at once, and over all pairs."""

from analysis.stats.coverage import Coverage, coverage
from analysis.stats.moderated import Arms, ModeratedGain, interval_of, moderated_gains
from analysis.stats.multiple import holm
from analysis.stats.paired import (
    CONFIDENCE,
    SIGNIFICANT,
    MeanWithInterval,
    effect,
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
    "SIGNIFICANT",
    "Arms",
    "Coverage",
    "FigureWithInterval",
    "MeanWithInterval",
    "ModeratedGain",
    "bootstrap_intervals",
    "coverage",
    "effect",
    "holm",
    "interquartile_mean",
    "interval_of",
    "moderated_gains",
    "p_sign_flip",
    "paired_gains",
    "probability_of_improvement",
    "show_spread",
    "summarize",
]
