"""Cross-validation of surrogates on small tables: which kind errs least, and by how much."""

from __future__ import annotations

__all__ = ["CrossValidation", "chosen_surrogate", "cross_validate", "is_small"]

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from matdesinne.data.datamodule import DesignDataModule
from matdesinne.errors import ConfigError
from matdesinne.surrogates.base import Surrogate
from matdesinne.training.build import build_module
from matdesinne.training.fit import fit
from matdesinne.training.surrogates import SurrogateModule

_LOGGER = logging.getLogger(__name__)

_SMALL = 1000
"""Rows below which a table is small: a tenth of them for validation says little."""
_FOLDS = 5
_FEWEST_ROWS = 10
_INNER = 8
"""One in so many of the rows of a fold chooses the best epoch, where a module needs that."""


@dataclass(frozen=True)
class CrossValidation:
    """Predictions of rows by surrogates that were trained without them, in physical units, before calibration."""

    mean: Float[Tensor, "n dy"]
    spread: Float[Tensor, "n dy"]
    y: Float[Tensor, "n dy"]  #: the labels, each measurement of its own

    @property
    def mae(self) -> Float[Tensor, " dy"]:
        """Mean absolute error of each property in its unit."""
        return (self.mean - self.y).abs().mean(dim=0)

    @property
    def relative_error(self) -> float:
        """Mean absolute error in standard deviations of the property, the mean over the properties."""
        return (self.mae / self.y.std(dim=0)).mean().item()

    def metrics(self, stage: str) -> dict[str, float]:
        """Its errors by the names that they have in the log of a stage."""
        rmse = (self.mean - self.y).square().mean().sqrt().item()
        return {f"{stage}/mae": self.mae.mean().item(), f"{stage}/rmse": rmse}


def is_small(data: DesignDataModule) -> bool:
    """Whether a table is so small that its surrogate is chosen and calibrated by cross-validation."""
    rows = len(data.split.train) + len(data.split.validation)
    return _FEWEST_ROWS <= rows < _SMALL and not data.split.train.bands and not data.added


def cross_validate(
    settings: DictConfig, data: DesignDataModule, trainer: Callable[..., pl.Trainer], folds: int = _FOLDS
) -> CrossValidation:
    """Predict each training and validation row by a surrogate that was trained on the other folds; test rows stay out.

    Replicates of a design are in one fold. Random numbers are those of torch's global generator.
    """
    rows = data.split.train.joined(data.split.validation)
    order = torch.randperm(len(rows))
    parts = []
    for held in order.tensor_split(folds):
        rest = order[~torch.isin(order, held)]
        module = build_module(settings, data)
        inner = _INNER if isinstance(module, SurrogateModule) and module.chooses_epochs else 0
        train, validation = (rest[len(rest) // inner :], rest[: len(rest) // inner]) if inner else (rest, held)
        trained = fit(module, data.with_rows(rows.take(train), rows.take(validation)), trainer)
        if not isinstance(trained, Surrogate):
            raise ConfigError(f"Expected the configuration of a surrogate, got one of a {type(trained).__name__}: correct it.")
        measured = data.measurements(rows.take(held))
        mean, spread = trained.predict_many(measured.x)
        parts.append((mean, spread, measured.y))
    return CrossValidation(*map(torch.cat, zip(*parts, strict=True)))


def chosen_surrogate(
    settings: DictConfig, data: DesignDataModule, trainer: Callable[..., pl.Trainer]
) -> tuple[DictConfig, CrossValidation | None]:
    """The settings of a surrogate, those of the better one where they hold several under ``choices``.

    On small tables the better one has the smaller error in cross-validation; on others it is the last one, without trying.

    Returns:
        The settings of one surrogate, and its cross-validation where there was one.
    """
    choices: Mapping[str, DictConfig] = settings.get("choices") or {"": settings}
    if not is_small(data):
        return list(choices.values())[-1], None
    tried = {name: cross_validate(choice, data, trainer) for name, choice in choices.items()}
    best = min(tried, key=lambda name: tried[name].relative_error)
    if len(tried) > 1:
        errors = ", ".join(f"{name} {result.relative_error:.3f}" for name, result in tried.items())
        _LOGGER.info(f"Surrogate {best}; cross-validated error in standard deviations of the property: {errors}")
    return choices[best], tried[best]
