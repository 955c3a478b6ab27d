"""How sure a mean over designs is."""

from __future__ import annotations

__all__ = ["LEVEL", "interval_text", "mean_interval", "mean_intervals"]

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.95
"""Content of the intervals."""
_RESAMPLES = 2000
_BATCH = 100
"""Resamples at once, so that their memory is bounded."""


def mean_intervals(values: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "2 d"]:
    """Lower and upper ends of the interval of each column's mean, by the bootstrap over rows; NaN for fewer than two.

    References:
        Efron and Tibshirani, An introduction to the bootstrap, Chapman and Hall 1993, chapter 13 (percentiles).

    Args:
        values: one row a design.
        seed: of the resampling.
    """
    if len(values) < 2:
        return np.full((2, values.shape[1]), np.nan)
    drawn = stats.bootstrap(
        (values,),
        np.mean,
        axis=0,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return np.stack(drawn.confidence_interval)


def mean_interval(values: Float[np.ndarray, " n"], seed: int) -> tuple[float, float] | None:
    """`mean_intervals` of one column; ``None`` for fewer than two values."""
    if len(values) < 2:
        return None
    lower, upper = mean_intervals(values[:, np.newaxis], seed)[:, 0].tolist()
    return lower, upper


def interval_text(mean: float, lower: float, upper: float) -> str:
    """A mean with its interval for a reader; without one where it is not known."""
    return f"{mean:.3g}" if np.isnan(lower) else f"{mean:.3g} ({lower:.3g} to {upper:.3g})"
