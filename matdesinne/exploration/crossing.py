"""Searches for transitions: the shortest of any kind, many small ones of one knob, designs that are far from all."""

from __future__ import annotations

__all__ = ["at_edges", "remoteness", "shortest_transitions", "small_transitions"]

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.exploration.nearest import Reached, Side, along, nearest
from matdesinne.exploration.transitions import Levels, Transitions, joined
from matdesinne.localization import Newton
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target

_ON_LEVEL = 1e-4
"""Distance to a level at which a start counts as on it, in the unit of the property."""
_FEW_POINTS = 5
"""Of a scan over a small change."""


def at_edges(surrogate: Surrogate, designs: Float[Tensor, "n dx"], levels: Levels, space: DesignSpace) -> Float[Tensor, "m dx"]:
    """Move designs onto the edge of the side that each is nearer to, by Newton's projection; what does not arrive is dropped.

    Args:
        surrogate: whose levels are meant.
        designs: in physical units.
        levels: the sides.
        space: its bounds hold.
    """
    mean, std = surrogate.predict_many(designs)
    assert levels.threshold is not None  # Levels sets it
    upper = mean[:, 0] > levels.threshold
    kept = []
    for rows, level in ((~upper, levels.low), (upper, levels.high)):
        if rows.any():
            target = Target((level,), (level,))
            there = Candidates(space, surrogate.properties, designs[rows], target, mean[rows], std[rows], "sampled")
            moved = Newton(_ON_LEVEL / 10).refine(there, surrogate)
            kept.append(moved.designs[moved.error[:, 0] <= _ON_LEVEL])
    return torch.cat(kept)


def small_transitions(
    surrogate: Surrogate, designs: Float[Tensor, "n dx"], levels: Levels, reach: float, space: DesignSpace | None = None
) -> Transitions:
    """Transitions by a small change of one knob, of designs on either side: every knob that is steep enough at the design.

    A knob is followed in the direction of its slope where the line through the design comes within 1.5 times the reach.

    Args:
        surrogate: predicts the property and its gradient.
        designs: the starts, in physical units; best at the edges, see `at_edges`.
        levels: the sides.
        reach: longest change, in half-widths of the box.
        space: the surrogate's, maybe with narrower bounds.
    """
    space = space or surrogate.space
    at = surrogate.linearize(designs.to(surrogate.device))
    mean, slope = at.mean[:, 0].cpu(), at.jacobian[:, 0].cpu() * surrogate.scale.std.cpu()
    found = [Transitions.judged(surrogate, levels, designs[:0], designs[:0], [], space)]
    for above in (True, False):
        side = levels.goal(above)
        ready = mean <= levels.low + _ON_LEVEL if above else mean >= levels.high - _ON_LEVEL
        rows, knobs = (ready[:, None] & (side.missing(mean)[:, None] <= 1.5 * reach * slope.abs())).nonzero().unbind(dim=1)
        rays = torch.zeros(len(rows), space.dimension)
        rays[torch.arange(len(rows)), knobs] = slope[rows, knobs].sign() * (1.0 if above else -1.0)
        reached = along(surrogate, designs[rows], rays, side, space, torch.full((len(rows),), reach), _FEW_POINTS)
        there = reached.distance <= reach
        names = [space.names[knob] for knob in knobs[there].tolist()]
        found.append(Transitions.judged(surrogate, levels, designs[rows][there], reached.designs[there], names, space))
    return joined(found)


def shortest_transitions(
    surrogate: Surrogate,
    designs: Float[Tensor, "n dx"],
    knobs: Sequence[Sequence[str]],
    levels: Levels,
    space: DesignSpace | None = None,
    reach: float = 2.0,
) -> Transitions:
    """For every design on one side and every set of knobs, the smallest change to the other side.

    One knob alone is searched exactly, on its whole line; for several the search begins at the design and at the crossings of
    each of them alone, and the shortest result counts.

    Args:
        surrogate: predicts the property.
        designs: the starts, in physical units; those on neither side are left out.
        knobs: sets of parameters that may change.
        levels: the sides.
        space: the surrogate's, maybe with narrower bounds.
        reach: longest change to look for, in half-widths of the box.

    Raises:
        ConfigError: if a set is empty or names no parameter.
    """
    space = space or surrogate.space
    sets = [_indices(space, names) for names in knobs]
    mean = surrogate.predict_many(designs)[0][:, 0]
    found = [Transitions.judged(surrogate, levels, designs[:0], designs[:0], [], space)]
    for above in (True, False):
        slack = _ON_LEVEL
        start = designs[mean <= levels.low + slack if above else mean >= levels.high - slack]
        if len(start) == 0:
            continue
        side = levels.goal(above)
        singles = {i: _alone(surrogate, start, i, side, space, reach) for i in sorted({i for one in sets for i in one})}
        for indices in sets:
            reached = singles[indices[0]]
            if len(indices) > 1:
                reached = _together(surrogate, start, indices, side, space, [singles[i] for i in indices])
            rows = reached.distance <= reach
            name = "+".join(space.names[i] for i in indices)
            found.append(
                Transitions.judged(surrogate, levels, start[rows], reached.designs[rows], [name] * int(rows.sum()), space)
            )
    return joined(found)


def remoteness(
    surrogate: Surrogate, designs: Float[Tensor, "n dx"], level: float, space: DesignSpace | None = None, rounds: int = 4
) -> Float[Tensor, " n"]:
    """Length of the smallest change of all parameters that takes the property across a level, in half-widths of the box.

    The search begins at the design, and then at the ends of the others that it has found: an upper bound of the true minimum,
    infinite where nothing was found.

    Args:
        surrogate: predicts the property.
        designs: in physical units.
        level: in the unit of the property.
        space: the surrogate's, maybe with narrower bounds.
        rounds: searches for each design.
    """
    space = space or surrogate.space
    above = surrogate.predict_many(designs)[0][:, 0] <= level
    found = torch.full((len(designs),), torch.inf)
    for side in (Side(level, True), Side(level, False)):
        rows = above if side.above else ~above
        if rows.any():
            found[rows] = _restarted(surrogate, designs[rows], side, space, rounds)
    return found


def _restarted(
    surrogate: Surrogate, start: Float[Tensor, "n dx"], side: Side, space: DesignSpace, rounds: int
) -> Float[Tensor, " n"]:
    free = torch.ones_like(start, dtype=torch.bool)
    reached = nearest(surrogate, start, free, side, space, start)
    shortest, unit = reached.distance, surrogate.scale.std.cpu()
    ends = reached.designs[shortest.isfinite()]
    for number in range(1, rounds):
        if len(ends) == 0:
            break
        order = torch.cdist(start / unit, ends / unit).argsort(dim=1)
        begin = ends[order[:, min(number - 1, len(ends) - 1)]]
        shortest = torch.minimum(shortest, nearest(surrogate, start, free, side, space, begin).distance)
    return shortest


def _alone(
    surrogate: Surrogate, start: Float[Tensor, "n dx"], knob: int, side: Side, space: DesignSpace, reach: float
) -> Reached:
    """The nearer crossing of the two directions of a knob."""
    best: Reached | None = None
    for sign in (1.0, -1.0):
        rays = torch.zeros_like(start)
        rays[:, knob] = sign
        limit = torch.full((len(start),), reach) if best is None else best.distance.clamp_max(reach)
        found = along(surrogate, start, rays, side, space, limit)
        if best is None:
            best = found
        else:
            nearer = found.distance < best.distance
            ends = torch.where(nearer[:, None], found.designs, best.designs)
            best = Reached(ends, torch.minimum(found.distance, best.distance))
    assert best is not None
    return best


def _together(
    surrogate: Surrogate,
    start: Float[Tensor, "n dx"],
    knobs: Sequence[int],
    side: Side,
    space: DesignSpace,
    singles: Sequence[Reached],
) -> Reached:
    """The shortest of the crossings of each knob alone and of what a search of all together finds from each of these."""
    free = torch.zeros_like(start, dtype=torch.bool)
    free[:, list(knobs)] = True
    best = nearest(surrogate, start, free, side, space, start)
    for single in singles:
        begin = torch.where(single.distance.isfinite()[:, None], single.designs, start)
        for found in (single, nearest(surrogate, start, free, side, space, begin)):
            nearer = found.distance < best.distance
            ends = torch.where(nearer[:, None], found.designs, best.designs)
            best = Reached(ends, torch.minimum(found.distance, best.distance))
    return best


def _indices(space: DesignSpace, names: Sequence[str]) -> list[int]:
    if not names or isinstance(names, str):
        raise ConfigError(f"Expected a list of parameters that may change, got {names!r}: e.g. [b, electric_field].")
    return [space.index(name) for name in names]
