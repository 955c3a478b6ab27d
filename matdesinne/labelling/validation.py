"""Validation of candidates: labels by an oracle, compared with the targets and with the predictions."""

from __future__ import annotations

__all__ = ["TargetErrors", "Validation", "stratified", "validate"]

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError, DatasetError
from matdesinne.labelling.points import Points
from matdesinne.labelling.run import LabelRun, label_points
from matdesinne.oracles.base import Oracle
from matdesinne.reporting.intervals import LEVEL, mean_interval


@dataclass(frozen=True)
class TargetErrors:
    """Errors of the candidates for one target, with 95 % intervals.

    Args:
        target: the target as text.
        labelled: number of candidates with a label.
        failed: number of candidates whose calculation failed; the other numbers leave them out.
        mae: mean distance of the labels to the target, in the unit of the property; a single label has no interval.
        rmse: root mean square of that distance.
        largest: the largest distance.
        outliers: share of candidates with a distance above the limit, with Wilson's interval.
        at_floor: share whose label is at or below the property's floor although the target is above it, with Wilson's
            interval; ``None`` for a target at the floor or a property without one.
        prediction_mae: mean distance of the labels to the predictions.
        within_spread: share whose label is within one predicted standard deviation of the prediction; 0.68 if calibrated.
        within_two: the same for two standard deviations; 0.95 if calibrated.
        rank_correlation: Spearman's, between predicted spread and distance to the prediction; ``None`` if one is constant.
    """

    target: str
    labelled: int
    failed: int
    mae: float
    mae_interval: tuple[float, float] | None
    rmse: float
    largest: float
    outliers: float
    outliers_interval: tuple[float, float]
    at_floor: float | None
    at_floor_interval: tuple[float, float] | None
    prediction_mae: float
    within_spread: float
    within_two: float
    rank_correlation: float | None


@dataclass(frozen=True)
class Validation:
    """The candidates chosen for each target, and their labels in float64, NaN where the calculation failed."""

    chosen: Sequence[Candidates]
    labels: Sequence[Float[Tensor, " n"]]
    run: LabelRun

    def errors(self, outlier: float, seed: int) -> list[TargetErrors]:
        """Returns the errors for each target; a label farther from it than `outlier`, in its unit, is an outlier."""
        pairs = zip(self.chosen, self.labels, strict=True)
        return [_errors(candidates, labels, outlier, seed) for candidates, labels in pairs]


def stratified(spread: Float[Tensor, " n"], count: int, generator: torch.Generator) -> Int[Tensor, " m"]:
    """Chooses one row out of each of `count` equal parts of the rows, sorted by the predicted spread.

    One random number gives the place within every part (systematic sampling). Every row has the same chance, so means over the
    chosen rows are unbiased, and certain and uncertain predictions are chosen in proportion.

    References:
        Cochran, Sampling Techniques, 3rd ed., Wiley 1977, chapter 8.

    Returns:
        `count` row numbers, or all if there are fewer.
    """
    order = spread.argsort(stable=True)
    if len(order) <= count:
        return order
    places = (torch.arange(count) + torch.rand(1, generator=generator, dtype=torch.float64)) * len(order) / count
    return order[places.long()]


def validate(
    tables: Sequence[Candidates], per_target: int, oracle: Oracle, executor: Executor, folder: Path, generator: torch.Generator
) -> Validation:
    """Choose candidates of each table, one for each target, and label them as `label_points` does.

    Raises:
        ConfigError: if there are several properties, or the oracle does not compute the property or has other parameters.
    """
    if len(tables[0].properties) != 1:
        names = [prop.name for prop in tables[0].properties]
        raise ConfigError(f"Expected candidates for one property, got {names}: validate them one by one.")
    name = tables[0].properties[0].name
    oracle.check_column(name)
    if any(table.space.names != oracle.space.names for table in tables):
        raise ConfigError(
            f"Expected candidates of {list(oracle.space.names)}, got {list(tables[0].space.names)}: change material."
        )
    chosen = [table.take(stratified(table.std[:, 0], per_target, generator)) for table in tables]
    x = torch.cat([table.designs for table in chosen]).double()
    run = label_points(oracle, Points(x, torch.arange(len(x))), executor, folder)
    return Validation(chosen, run.values(name).split([len(table) for table in chosen]), run)


def _errors(candidates: Candidates, labels: Float[Tensor, " n"], outlier: float, seed: int) -> TargetErrors:
    known = ~labels.isnan()
    if not known.any():
        raise DatasetError("Expected labels to compare with, got failures only: read the reasons in labels.parquet.")
    prop, y = candidates.properties[0], labels[known].unsqueeze(1)
    error = candidates.target.residual(y).abs()[:, 0].numpy()
    miss = (y - candidates.mean[known].double()).abs()[:, 0].numpy()
    spread = candidates.std[known, 0].double().numpy()
    target_above = prop.floor is not None and candidates.target.values[0] > prop.floor
    at_floor = int((y <= (prop.floor or 0.0)).sum()) if target_above else None
    return TargetErrors(
        target=candidates.target.format(candidates.properties),
        labelled=len(error),
        failed=int((~known).sum()),
        mae=float(error.mean()),
        mae_interval=mean_interval(error, seed),
        rmse=float(np.sqrt(np.square(error).mean())),
        largest=float(error.max()),
        outliers=float((error > outlier).mean()),
        outliers_interval=_wilson(int((error > outlier).sum()), len(error)),
        at_floor=None if at_floor is None else at_floor / len(error),
        at_floor_interval=None if at_floor is None else _wilson(at_floor, len(error)),
        prediction_mae=float(miss.mean()),
        within_spread=float((miss <= spread).mean()),
        within_two=float((miss <= 2 * spread).mean()),
        rank_correlation=_rank_correlation(spread, miss),
    )


def _wilson(hits: int, count: int) -> tuple[float, float]:
    interval = stats.binomtest(hits, count).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def _rank_correlation(spread: Float[np.ndarray, " n"], miss: Float[np.ndarray, " n"]) -> float | None:
    if len(spread) < 3 or np.ptp(spread) == 0 or np.ptp(miss) == 0:
        return None
    return float(stats.spearmanr(spread, miss).statistic)
