"""Steps of designs onto a target to first order, inside the bounds: the smallest change of a wished step that gets there."""

from __future__ import annotations

__all__ = ["Region", "check_search", "step_onto"]

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matdesinne.constraints import Constraints
from matdesinne.errors import ConfigError
from matdesinne.space import DesignSpace
from matdesinne.targets import Target

_JITTER = 1e-10
"""Squared slope below which a surrogate is taken as flat, in squared units of the property per half-width of the box."""


def check_search(tolerance: float, longest_step: float, **most: int) -> None:
    """Raise a ConfigError if a setting of a search along a surrogate is out of range; `most` is its largest number of steps."""
    [(name, count)] = most.items()
    if not (tolerance > 0 and count >= 1 and longest_step > 0):
        raise ConfigError(
            f"Expected tolerance > 0, {name} >= 1 and longest_step > 0, got {tolerance}, {count} and {longest_step}: "
            "correct them."
        )


class Region(NamedTuple):
    """Where designs may move: bounds, constraints, and the half-widths of the box, 0 of a parameter that is held."""

    lower: Float[Tensor, " dx"]
    upper: Float[Tensor, " dx"]
    unit: Float[Tensor, " dx"]
    constraints: Constraints

    @classmethod
    def of(cls, space: DesignSpace, unit: Float[Tensor, " dx"], x: Float[Tensor, "n dx"]) -> Region:
        """The region of a space, on the device of `unit` and with the type of x."""
        lower, upper = (edge.to(unit.device, x.dtype) for edge in (space.lower, space.upper))
        return cls(lower, upper, unit, space.constraints)

    def clamp(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dx"]:
        """The nearest designs inside."""
        x = self.constraints.onto_sums(x) if self.constraints.mixtures else x
        return x.clamp(self.lower, self.upper)


def step_onto(
    target: Target,
    x: Float[Tensor, "n dx"],
    mean: Float[Tensor, "n dy"],
    jacobian: Float[Tensor, "n dy dx"],
    region: Region,
    wish: Float[Tensor, "n dx"] | None = None,
) -> Float[Tensor, "n dx"]:
    r"""Solve :math:`\min_s |s - w|^2` with :math:`l \le f(x) + J s \le h` for each row, in half-widths of the box.

    An interval is an inequality: a property inside it does not take part, unless the step would take it outside; then the
    step puts it on its edge. Nor does a property that is not asked for. A coordinate at a bound is held where the step would
    leave the box, and sums of mixtures are kept.

    Args:
        target: the edges l and h.
        x: designs in physical units.
        mean: their properties.
        jacobian: derivatives of the properties with respect to x / unit.
        region: bounds, and half-widths of the box.
        wish: the step w in half-widths of the box; none when omitted.
    """
    columns = target.asked_columns
    lower, upper = (mean.new_tensor([edge[j] for j in columns]) for edge in (target.lower, target.upper))
    if len(columns) < len(target.asked):
        mean, jacobian = mean[:, columns], jacobian[:, columns]
    held = torch.zeros_like(x, dtype=torch.bool)
    step = _free_step(lower, upper, mean, jacobian, wish, region, held)
    # a held coordinate stays held, so each pass holds at least one more and the loop ends; fixed parameters are held first
    while (leaving := ((x <= region.lower) & (step < 0)) | ((x >= region.upper) & (step > 0))).any():
        held |= leaving
        jacobian = jacobian.masked_fill(held.unsqueeze(1), 0.0)
        wish = None if wish is None else wish.masked_fill(held, 0.0)
        step = _free_step(lower, upper, mean, jacobian, wish, region, held)
    return step


def _free_step(
    lower: Float[Tensor, " dy"],
    upper: Float[Tensor, " dy"],
    mean: Float[Tensor, "n dy"],
    jacobian: Float[Tensor, "n dy dx"],
    wish: Float[Tensor, "n dx"] | None,
    region: Region,
    held: Bool[Tensor, "n dx"],
) -> Float[Tensor, "n dx"]:
    jacobian = region.constraints.tangent(jacobian, region.unit, held)
    if wish is None:
        return _shortest_step(lower, upper, mean, jacobian)
    wish = region.constraints.tangent(wish.unsqueeze(1), region.unit, held).squeeze(1)
    reached = mean + (jacobian @ wish.unsqueeze(-1)).squeeze(-1)
    return wish + _shortest_step(lower, upper, reached, jacobian)


def _shortest_step(
    lower: Float[Tensor, " dy"], upper: Float[Tensor, " dy"], mean: Float[Tensor, "n dy"], jacobian: Float[Tensor, "n dy dx"]
) -> Float[Tensor, "n dx"]:
    """Minimal-norm s with l <= y + J s <= h; zero where J vanishes."""
    if mean.shape[1] == 0:
        return jacobian.new_zeros(jacobian.shape[0], jacobian.shape[2])
    if mean.shape[1] == 1:  # a division, faster than the general case
        row, residual = jacobian.squeeze(1), mean - mean.clamp(lower, upper)
        return -row * (residual / (row.square().sum(dim=1, keepdim=True) + _JITTER))
    force = _multipliers(lower.double(), upper.double(), mean.double(), (jacobian @ jacobian.mT).double())
    return (jacobian.mT @ force.to(jacobian).unsqueeze(-1)).squeeze(-1)


def _multipliers(
    lower: Float[Tensor, " dy"], upper: Float[Tensor, " dy"], mean: Float[Tensor, "n dy"], gram: Float[Tensor, "n dy dy"]
) -> Float[Tensor, "n dy"]:
    r"""The multipliers :math:`\lambda` of the shortest step :math:`s = J^T \lambda`, by a primal-dual active set.

    It starts with the properties that are outside of their interval, pushed to the nearest edge. A push of the wrong sign, away
    from the interval's inside, is dropped, and a property that the step leaves outside is added, until nothing changes.

    References:
        Hintermueller, Ito, Kunisch, The primal-dual active set strategy as a semismooth Newton method, SIAM J. Optim. 13, 865
        (2002), doi 10.1137/S1052623401383558.
    """
    values, force = lower == upper, torch.zeros_like(mean)
    edge = torch.full_like(mean, torch.inf)
    for _ in range(2 * mean.shape[1] + 1):
        moved = mean + (gram @ force.unsqueeze(-1)).squeeze(-1)
        outside = torch.where(moved < lower, lower, torch.where(moved > upper, upper, torch.inf))
        pushed = torch.where((edge == lower) == (force > 0), edge, torch.inf)
        before, edge = edge, torch.where(values, lower, torch.where(edge.isfinite(), pushed, outside))
        if (edge == before).all():
            break
        active = edge.isfinite()
        missing = torch.where(active, edge - mean, 0.0)
        both = active.unsqueeze(1) & active.unsqueeze(2)
        matrix = gram.where(both, 0.0) + torch.diag_embed((~active).double() + _JITTER)
        force = torch.linalg.solve(matrix, missing)
    return force
