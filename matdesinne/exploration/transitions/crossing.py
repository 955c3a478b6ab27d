r"""Crossings of a level: the first one on a line through a design, and the nearest one in any direction.

Designs are in physical units, distances in half-widths of the box, and both searches stay inside the surrogate's design space.

The nearest crossing is found by sequential projection with a merit function. In coordinates u scaled by the box with the origin
at the start, each round moves towards the point of the linearised level set inside the box that is nearest to the origin,

.. math:: u_{k+1} = \arg\min \{|u| : g(u_k) + \nabla g(u_k) (u - u_k) = 0, u_- \le u \le u_+\},

while Newton's projection takes the point nearest to :math:`u_k`. At the end u is therefore parallel to the gradient, except for
parameters at their bounds. A step is halved until :math:`|u| + 2 |g| / |\nabla g|` decreases. The result is the minimum of the
basin in which the search begins.

References:
    Nocedal and Wright, Numerical Optimization, 2nd ed. (2006), chapter 18, doi 10.1007/978-0-387-40065-5.
"""

from __future__ import annotations

__all__ = ["Crossings", "Side", "first_crossing", "half_widths", "nearest_crossing"]

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from matdesinne.surrogates.base import Surrogate

_BISECTIONS = 12
_ROUNDS = 20
_LONGEST_STEP = 0.4
"""Longest step of a round, in half-widths of the box."""
_STILL = 1e-5
"""A search ends when its step is shorter than this, in half-widths of the box."""
_TOLERANCE = 1e-4
"""Largest distance from the level that counts as on it, in the unit of the property."""
_FLAT = 1e-6
"""Slopes smaller than this count as zero, in the unit of the property for each half-width of the box."""


@dataclass(frozen=True)
class Side:
    """The designs whose first property is at least (`above`), or otherwise at most, a level in its unit."""

    level: float
    above: bool

    def missing(self, y: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Returns how far values of the property are from this side; at most 0 for values on it."""
        return self.level - y if self.above else y - self.level


class Crossings(NamedTuple):
    """For each start, the design where the property has crossed the level (or NaN), and its distance (or infinity)."""

    designs: Float[Tensor, "n dx"]
    distance: Float[Tensor, " n"]


def half_widths(surrogate: Surrogate) -> Float[Tensor, " dx"]:
    """Returns half the width of the box along each parameter, in physical units; of unbounded ones the standard deviation."""
    return surrogate.scale.std.detach().cpu().clone()


def first_crossing(
    surrogate: Surrogate,
    x: Float[Tensor, "n dx"],
    rays: Float[Tensor, "n dx"],
    side: Side,
    reach: Float[Tensor, " n"],
    points: int = 24,
) -> Crossings:
    """Find the first crossing on a line from each start, up to a reach, by a scan of some points and bisection.

    The rays are directions in half-widths of the box, of length 1. The scan can miss a stretch that is shorter than the
    distance of two points: of 24, 0.2 % of the reach at first, 8 % at last.
    """
    direction = rays * half_widths(surrogate)
    edge = torch.where(direction > 0, surrogate.space.upper.to(x), surrogate.space.lower.to(x))
    to_bounds = torch.where(direction == 0, torch.inf, (edge - x) / direction).amin(dim=1).clamp_min(0.0)
    reach = torch.minimum(reach, to_bounds)
    low, high = torch.zeros(len(x)), torch.full((len(x),), torch.inf)
    rows = (reach > 0).nonzero()[:, 0]
    for step in range(1, points + 1):
        length = reach[rows] * (step / points) ** 2
        across = _is_across(surrogate, x[rows] + length[:, None] * direction[rows], side)
        high[rows[across]] = length[across]
        low[rows[~across]] = length[~across]
        rows = rows[~across]
    rows = high.isfinite().nonzero()[:, 0]
    for _ in range(_BISECTIONS):
        middle = (low[rows] + high[rows]) / 2
        across = _is_across(surrogate, x[rows] + middle[:, None] * direction[rows], side)
        high[rows] = torch.where(across, middle, high[rows])
        low[rows] = torch.where(across, low[rows], middle)
    designs = x + high.where(high.isfinite(), torch.nan)[:, None] * direction
    return Crossings(_clamp(designs, surrogate), high)


def _is_across(surrogate: Surrogate, x: Float[Tensor, "n dx"], side: Side) -> Bool[Tensor, " n"]:
    return side.missing(surrogate.predict_many(x)[0][:, 0]) <= 0


def nearest_crossing(
    surrogate: Surrogate, x: Float[Tensor, "n dx"], free: Bool[Tensor, "n dx"], side: Side, begin: Float[Tensor, "n dx"]
) -> Crossings:
    """Find the shortest change of the free parameters onto the level; see the head of this module.

    Each search begins at a design of `begin`: at the start itself, or at a known crossing.
    """
    unit, space = half_widths(surrogate), surrogate.space
    low = torch.where(free, (space.lower.to(x) - x) / unit, 0.0).clamp_max(0.0)
    high = torch.where(free, (space.upper.to(x) - x) / unit, 0.0).clamp_min(0.0)
    search = _Projection(torch.clamp((begin - x) / unit, low, high), low, high)
    rows = torch.arange(len(x))
    for _ in range(_ROUNDS):
        if len(rows) == 0:
            break
        at = surrogate.linearize((x[rows] + unit * search.trial[rows]).to(surrogate.device))
        slope = at.jacobian[:, 0].cpu() * unit * (-1.0 if side.above else 1.0)
        rows = search.advance(rows, side.missing(at.mean[:, 0].cpu()), slope.masked_fill(~free[rows], 0.0))
    return Crossings(_clamp(x + unit * search.best, surrogate), search.distance)


class _Projection:
    """The searches of `nearest_crossing`, in coordinates with the origin at the start of each, between bounds about it."""

    def __init__(self, begin: Float[Tensor, "n dx"], low: Float[Tensor, "n dx"], high: Float[Tensor, "n dx"]) -> None:
        self.low, self.high = low, high
        self.trial, self.point, self.step = begin.clone(), begin.clone(), torch.zeros_like(begin)
        self.merit, self.weight = begin.new_full((len(begin),), torch.inf), begin.new_zeros(len(begin))
        self.best, self.distance = torch.full_like(begin, torch.nan), torch.full_like(self.merit, torch.inf)

    def advance(self, rows: Int[Tensor, " m"], gap: Float[Tensor, " m"], slope: Float[Tensor, "m dx"]) -> Int[Tensor, " r"]:
        """Choose the next trial points of some searches from `gap`, the distance to the other side, and its gradient.

        Returns:
            The numbers of the searches that go on.
        """
        length = self.trial[rows].norm(dim=1)
        nearest = rows[(gap <= _TOLERANCE) & (length < self.distance[rows])]
        self.best[nearest], self.distance[nearest] = self.trial[nearest], self.trial[nearest].norm(dim=1)
        better = length + self.weight[rows] * gap.abs() < self.merit[rows]
        self._accept(rows[better], gap[better], slope[better])
        self.step[rows[~better]] *= 0.5
        rows = rows[self.step[rows].norm(dim=1) > _STILL]
        self.trial[rows] = torch.clamp(self.point[rows] + self.step[rows], self.low[rows], self.high[rows])
        return rows

    def _accept(self, rows: Int[Tensor, " m"], gap: Float[Tensor, " m"], slope: Float[Tensor, "m dx"]) -> None:
        self.point[rows] = self.trial[rows]
        self.weight[rows] = 2 / slope.norm(dim=1).clamp_min(_FLAT)
        self.merit[rows] = self.point[rows].norm(dim=1) + self.weight[rows] * gap.abs()
        on_level = (slope * self.point[rows]).sum(dim=1) - gap
        towards = _shortest(slope, on_level, self.low[rows], self.high[rows]) - self.point[rows]
        self.step[rows] = towards * (_LONGEST_STEP / towards.norm(dim=1, keepdim=True).clamp_min(_LONGEST_STEP))


def _shortest(
    slope: Float[Tensor, "n dx"], product: Float[Tensor, " n"], low: Float[Tensor, "n dx"], high: Float[Tensor, "n dx"]
) -> Float[Tensor, "n dx"]:
    """Returns the shortest v with slope v = product between bounds that enclose 0, or the nearest to it that they allow."""
    v, at_bound = torch.zeros_like(slope), torch.zeros_like(slope, dtype=torch.bool)
    for _ in range(slope.shape[1]):
        free_slope = slope.masked_fill(at_bound, 0.0)
        rest = product - (slope * v.masked_fill(~at_bound, 0.0)).sum(dim=1)
        ideal = free_slope * (rest / free_slope.square().sum(dim=1).clamp_min(_FLAT**2)).unsqueeze(1)
        v = torch.where(at_bound, v, torch.clamp(ideal, low, high))
        # the multiplier only grows, so what has reached a bound stays there
        at_bound = at_bound | (ideal < low) | (ideal > high)
    return v


def _clamp(x: Float[Tensor, "n dx"], surrogate: Surrogate) -> Float[Tensor, "n dx"]:
    """Move designs that rounding has put outside back to the bounds; NaN stays."""
    return x.clamp(surrogate.space.lower.to(x), surrogate.space.upper.to(x))
