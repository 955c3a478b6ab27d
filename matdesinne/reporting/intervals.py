"""Confidence intervals of means and shares over designs."""

from __future__ import annotations

__all__ = [
    "LEVEL",
    "draw_bars",
    "interval_cells",
    "interval_columns",
    "interval_texts",
    "mean_interval",
    "mean_intervals",
    "share_interval",
]

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy import stats

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

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


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """Returns the ends of Wilson's interval of a share, of `hits` in `count` designs."""
    interval = stats.binomtest(hits, count).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def interval_cells(value: float | None, interval: tuple[float, float] | None, factor: float = 1.0) -> list[float | None]:
    """Returns a value and the ends of its interval as three cells of a table; what is missing stays ``None``."""
    return [None if cell is None else factor * cell for cell in (value, *(interval or (None, None)))]


def interval_columns(name: str, values: Float[np.ndarray, "n d"], seed: int) -> dict[str, Float[np.ndarray, " d"]]:
    """Returns the mean of each column under `name`, and the ends of its interval under ``name_lower`` and ``name_upper``."""
    return dict(zip(_columns(name), (values.mean(axis=0), *mean_intervals(values, seed)), strict=True))


def interval_texts(frame: pandas.DataFrame, name: str) -> list[str]:
    """Returns the means and intervals of `interval_columns` as text, without the interval if its ends are NaN."""
    return [
        f"{mean:.3g}" if np.isnan(lower) else f"{mean:.3g} ({lower:.3g} to {upper:.3g})"
        for mean, lower, upper in frame[_columns(name)].to_numpy()
    ]


def draw_bars(
    axis: Axes, places: Float[np.ndarray, " n"], frame: pandas.DataFrame, name: str, width: float, **style: object
) -> None:
    """Draw the means of `interval_columns` as bars with their intervals as lines."""
    mean, lower, upper = frame[_columns(name)].to_numpy().T
    axis.bar(places, mean, 0.9 * width, **style)  # type: ignore[arg-type]
    axis.errorbar(places, mean, [mean - lower, upper - mean], fmt="none", ecolor="black", linewidth=1)


def _columns(name: str) -> list[str]:
    return [name, f"{name}_lower", f"{name}_upper"]
