"""Scores of a set of candidates, and of a surrogate."""

from __future__ import annotations

__all__ = ["coverage", "mean_target_error", "spread_ratio", "surrogate_errors", "target_errors"]

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional import mean_absolute_error, mean_squared_error

from matdesinne.data.table import DesignTable
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target

_PAIR_ROWS = 2000


def mean_target_error(designs: Float[Tensor, "n dx"], target: Target, surrogate: Surrogate) -> float | None:
    """Returns the mean absolute distance of the predicted properties to the target, in the unit of the properties.

    For a target at a property's floor this is the mean of max(0, prediction - floor). Designs without a prediction (far outside
    the space, or with angles that enclose no cell) are left out; the result is ``None`` if no design has one.
    """
    return target_errors(designs, target, surrogate)[0]


def target_errors(
    designs: Float[Tensor, "n dx"], target: Target, surrogate: Surrogate, tolerance: float = 0.01
) -> tuple[float | None, float | None]:
    """Returns the error of `mean_target_error`, and the share of designs farther than a tolerance from the target.

    Args:
        designs: physical units, shape [n, dx].
        target: target of the candidates; at a property's floor a prediction below it is on target.
        surrogate: predicts the properties.
        tolerance: distance in the unit of each property.
    """
    mean, _ = surrogate.predict_many(designs)
    mean = mean[mean.isfinite().all(dim=1)]
    if len(mean) == 0:
        return None, None
    residual = target.residual(mean)
    share = (residual.abs() > tolerance).any(dim=1).float().mean().item()
    return mean_absolute_error(mean, mean - residual).item(), share


def spread_ratio(designs: Float[Tensor, "n dx"], reference: Float[Tensor, "m dx"], half_width: Float[Tensor, " dx"]) -> float:
    """Returns the mean distance of two candidates over that of two reference designs; 1 means equally diverse.

    The reference designs are training designs near the target; `half_width` scales each parameter.
    """
    return _mean_distance(designs / half_width) / _mean_distance(reference / half_width)


def coverage(
    designs: Float[Tensor, "n dx"], reference: Float[Tensor, "m dx"], half_width: Float[Tensor, " dx"], neighbours: int = 5
) -> float:
    """Returns the share of the reference designs that have a candidate nearer than their k-th reference neighbour.

    Arguments as of `spread_ratio`; k is `neighbours`.

    References:
        Naeem et al., Reliable fidelity and diversity metrics for generative models, ICML 2020, arXiv 2002.09797, eq. 4.
    """
    designs, reference = designs / half_width, reference / half_width
    radius = torch.cdist(reference, reference).kthvalue(min(neighbours + 1, len(reference)), dim=1).values
    nearest = torch.cdist(reference, designs).amin(dim=1)
    return (nearest <= radius).float().mean().item()


def surrogate_errors(surrogate: Surrogate, table: DesignTable) -> dict[str, float]:
    """Errors of a surrogate of one property on labelled rows, in the property's unit.

    Returns:
        ``rows``, the number of rows with a label; ``mae`` and ``rmse``, with predictions and labels raised to the floor;
        ``mae_above_floor`` on rows with a label above the floor; for uncensored band gaps ``mae_above_-0.2`` on rows with a
        label above -0.2 eV, not raised to the floor; ``coverage_50`` and ``coverage_90`` of the surrogate's intervals, on rows
        with an exact label.
    """
    prop = surrogate.properties[0]
    table = table.take(table.y[:, 0].isfinite().nonzero()[:, 0])  # some rows have no label on the 18 x 18 grid
    if len(table) == 0:
        return {"rows": 0.0}
    mean, std = surrogate.predict_many(table.x)
    prediction, label = mean[:, 0], table.y[:, 0]
    floor = -torch.inf if prop.floor is None else prop.floor
    clamped, clamped_label = prediction.clamp_min(floor), label.clamp_min(floor)
    errors = {
        "rows": float(len(table)),
        "mae": mean_absolute_error(clamped, clamped_label).item(),
        "rmse": mean_squared_error(clamped, clamped_label, squared=False).item(),
    }
    above = label > floor
    if 0 < above.sum() < len(label):
        errors["mae_above_floor"] = mean_absolute_error(clamped[above], clamped_label[above]).item()
    near = label > -0.2
    if not prop.censored and prop.name == "band_gap" and near.any():
        errors["mae_above_-0.2"] = mean_absolute_error(prediction[near], label[near]).item()
    exact = above if prop.censored else torch.ones_like(above)
    for level in (0.5, 0.9):
        inside = (prediction - label).abs() <= surrogate.half_width(std, level)[:, 0]
        if exact.any():
            errors[f"coverage_{100 * level:.0f}"] = inside[exact].float().mean().item()
    return errors


def _mean_distance(points: Float[Tensor, "n dx"]) -> float:
    chosen = points[:: max(len(points) // _PAIR_ROWS, 1)][:_PAIR_ROWS]
    return torch.pdist(chosen).mean().item()
