"""Confidence intervals of means over designs."""

from __future__ import annotations

__all__ = ["LEVEL", "interval_text", "mean_interval", "mean_intervals"]

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.95
"""Confidence level of the intervals."""
_RESAMPLES = 2000
_BATCH = 100
"""Resamples that are held in memory at once."""


def mean_intervals(values: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "2 d"]:
    """Returns the lower and upper ends of the interval of each column's mean, by the bootstrap over rows.

    The ends are NaN if there are fewer than two rows.

    References:
        Efron and Tibshirani, An introduction to the bootstrap, Chapman and Hall 1993, chapter 13 (percentiles).
    """
    if len(values) < 2:
        return np.full((2, values.shape[1]), np.nan)
    resampled = stats.bootstrap(
        (values,),
        np.mean,
        axis=0,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return np.stack(resampled.confidence_interval)


def mean_interval(values: Float[np.ndarray, " n"], seed: int) -> tuple[float, float] | None:
    """Returns `mean_intervals` of one column, or ``None`` for fewer than two values."""
    if len(values) < 2:
        return None
    lower, upper = mean_intervals(values[:, np.newaxis], seed)[:, 0].tolist()
    return lower, upper


def interval_text(mean: float, lower: float, upper: float) -> str:
    """Returns a mean and its interval as text, without the interval if its ends are NaN."""
    return f"{mean:.3g}" if np.isnan(lower) else f"{mean:.3g} ({lower:.3g} to {upper:.3g})"
