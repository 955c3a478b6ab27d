"""The smallest change of a design that takes a property to the other side of a level."""

from __future__ import annotations

__all__ = ["Reached", "Side", "along", "nearest"]

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate

_BISECTIONS = 12
_ROUNDS = 20
_LONGEST_STEP = 0.4
"""Of a round, in half-widths of the box."""
_STILL = 1e-5
"""Step in half-widths of the box below which a row has arrived."""
_TOLERANCE = 1e-4
"""Of the level, in the unit of the property."""
_FLAT = 1e-6
"""Slope per half-width that counts as none, in the unit of the property."""


@dataclass(frozen=True)
class Side:
    """The designs whose first property is at least, or at most, a level.

    Args:
        level: in the unit of the property.
        above: at least; else at most.
    """

    level: float
    above: bool

    def missing(self, y: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """How far the property still has to go, at most 0 on this side."""
        return self.level - y if self.above else y - self.level


class Reached(NamedTuple):
    """What a search has found.

    Args:
        designs: the nearest designs on the other side, in physical units; NaN where none was found.
        distance: length of the change in half-widths of the box, infinite where none was found.
    """

    designs: Float[Tensor, "n dx"]
    distance: Float[Tensor, " n"]


def along(
    surrogate: Surrogate,
    x: Float[Tensor, "n dx"],
    rays: Float[Tensor, "n dx"],
    side: Side,
    space: DesignSpace,
    reach: Float[Tensor, " n"],
    points: int = 24,
) -> Reached:
    """First crossing on a straight line, found by a scan and bisection: also where a search along gradients is led elsewhere.

    What is narrower than the distance of two points of the scan can be missed: of 24, 0.2 % of the reach at its start and 8 %
    at its end.

    Args:
        surrogate: predicts the property.
        x: where the lines start, in physical units.
        rays: their directions in half-widths of the box, of length 1.
        side: where to go.
        space: its bounds hold.
        reach: how far to look, in half-widths of the box.
        points: of the scan.
    """
    unit = surrogate.scale.std.cpu()
    reach = torch.minimum(reach, _room(x, rays * unit, space))
    low, high = torch.zeros(len(x)), torch.full((len(x),), torch.inf)
    rows = (reach > 0).nonzero()[:, 0]
    for step in range(1, points + 1):
        length = reach[rows] * (step / points) ** 2
        across = _missing(surrogate, x[rows] + length[:, None] * rays[rows] * unit, side) <= 0
        high[rows[across]] = length[across]
        low[rows[~across]] = length[~across]
        rows = rows[~across]
    rows = high.isfinite().nonzero()[:, 0]
    for _ in range(_BISECTIONS):
        middle = (low[rows] + high[rows]) / 2
        across = _missing(surrogate, x[rows] + middle[:, None] * rays[rows] * unit, side) <= 0
        high[rows] = torch.where(across, middle, high[rows])
        low[rows] = torch.where(across, low[rows], middle)
    found = x + high.where(high.isfinite(), torch.nan)[:, None] * rays * unit
    return Reached(_inside(found, space), high)


def nearest(
    surrogate: Surrogate,
    x: Float[Tensor, "n dx"],
    free: Bool[Tensor, "n dx"],
    side: Side,
    space: DesignSpace,
    begin: Float[Tensor, "n dx"],
) -> Reached:
    r"""Shortest change of some parameters onto the level: sequential projection of the start, with a merit function.

    In coordinates u scaled by the box with the origin at the start, each round takes the point nearest to the origin on the
    linearised level set inside the box,

    .. math:: u_{k+1} = \arg\min \{|u| : g(u_k) + \nabla g(u_k) (u - u_k) = 0, u_- \le u \le u_+\},

    where Newton's projection takes the one nearest to :math:`u_k`: so where it comes to rest u is parallel to the gradient,
    up to parameters at their bounds. A step is halved until :math:`|u| + 2 |g| / |\nabla g|` falls. The minimum is that of the
    basin in which the search begins.

    References:
        Nocedal and Wright, Numerical Optimization, 2nd ed. (2006), chapter 18, doi 10.1007/978-0-387-40065-5.

    Args:
        surrogate: predicts the property and its gradient.
        x: the starts, in physical units.
        free: the parameters that may change.
        side: where to go.
        space: its bounds hold.
        begin: where to begin the search, in physical units; `x` itself, or a crossing that is known.
    """
    unit = surrogate.scale.std.cpu()
    low = torch.where(free, (space.lower.to(x) - x) / unit, 0.0).clamp_max(0.0)
    high = torch.where(free, (space.upper.to(x) - x) / unit, 0.0).clamp_min(0.0)
    point = torch.clamp((begin - x) / unit, low, high)
    best, distance = torch.full_like(point, torch.nan), torch.full((len(x),), torch.inf)
    trial, step, merit = point.clone(), torch.zeros_like(point), torch.full((len(x),), torch.inf)
    weight = torch.zeros(len(x))
    rows = torch.arange(len(x))
    for _ in range(_ROUNDS):
        at = surrogate.linearize((x[rows] + unit * trial[rows]).to(surrogate.device))
        gap, slope = side.missing(at.mean[:, 0].cpu()), at.jacobian[:, 0].cpu() * unit * (-1.0 if side.above else 1.0)
        slope = slope.masked_fill(~free[rows], 0.0)
        length = trial[rows].norm(dim=1)
        won = rows[(gap <= _TOLERANCE) & (length < distance[rows])]
        best[won], distance[won] = trial[won], trial[won].norm(dim=1)
        better = length + weight[rows] * gap.abs() < merit[rows]
        good, gap, slope = rows[better], gap[better], slope[better]
        point[good] = trial[good]
        steepness = slope.norm(dim=1).clamp_min(_FLAT)
        weight[good] = 2 / steepness
        merit[good] = point[good].norm(dim=1) + weight[good] * gap.abs()
        wanted = (slope * point[good]).sum(dim=1) - gap
        towards = _shortest(slope, wanted, low[good], high[good]) - point[good]
        step[good] = towards * (_LONGEST_STEP / towards.norm(dim=1, keepdim=True).clamp_min(_LONGEST_STEP))
        step[rows[~better]] *= 0.5
        rows = rows[step[rows].norm(dim=1) > _STILL]
        trial[rows] = torch.clamp(point[rows] + step[rows], low[rows], high[rows])
        if len(rows) == 0:
            break
    return Reached(_inside(x + unit * best, space), distance)


def _shortest(
    slope: Float[Tensor, "n dx"], wanted: Float[Tensor, " n"], low: Float[Tensor, "n dx"], high: Float[Tensor, "n dx"]
) -> Float[Tensor, "n dx"]:
    """Minimal-norm v with slope v = wanted between bounds that enclose 0; as near to it as they allow."""
    found, held = torch.zeros_like(slope), torch.zeros_like(slope, dtype=torch.bool)
    for _ in range(slope.shape[1]):
        open_slope = slope.masked_fill(held, 0.0)
        rest = wanted - (slope * found.masked_fill(~held, 0.0)).sum(dim=1)
        ideal = open_slope * (rest / open_slope.square().sum(dim=1).clamp_min(_FLAT**2)).unsqueeze(1)
        found = torch.where(held, found, torch.clamp(ideal, low, high))
        # with the multiplier only growing, what has met a bound stays there
        held = held | (ideal < low) | (ideal > high)
    return found


def _missing(surrogate: Surrogate, x: Float[Tensor, "n dx"], side: Side) -> Float[Tensor, " n"]:
    return side.missing(surrogate.predict_many(x)[0][:, 0])


def _room(x: Float[Tensor, "n dx"], rays: Float[Tensor, "n dx"], space: DesignSpace) -> Float[Tensor, " n"]:
    """How many rays fit between each start and the bounds."""
    edge = torch.where(rays > 0, space.upper.to(x), space.lower.to(x))
    lengths = torch.where(rays == 0, torch.inf, (edge - x) / rays)
    return lengths.amin(dim=1).clamp_min(0.0)


def _inside(x: Float[Tensor, "n dx"], space: DesignSpace) -> Float[Tensor, "n dx"]:
    """Without what rounding has put outside; NaN stays."""
    return x.clamp(space.lower.to(x), space.upper.to(x))
