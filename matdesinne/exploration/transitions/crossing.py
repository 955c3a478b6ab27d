"""Searches for transitions: the shortest of any kind, many small ones of one knob, designs that are far from all."""

from __future__ import annotations

__all__ = ["at_edges", "remoteness", "shortest_transitions", "small_transitions"]

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.exploration.transitions.nearest import Reached, Side, along, nearest
from matdesinne.exploration.transitions.transition import Levels, Transitions, joined
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
    upper = mean[:, 0] > levels.threshold
    kept = [designs[:0]]
    for rows, level in ((~upper, levels.low), (upper, levels.high)):
        if rows.any():
            target = Target((level,), (level,))
            there = Candidates(space, surrogate.properties, designs[rows], target, mean[rows], std[rows], "sampled")
            moved = Newton(_ON_LEVEL / 10).localize(there, surrogate)
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
    found = [Transitions.between(surrogate, levels, designs[:0], designs[:0], [], space)]
    for above in (True, False):
        side = levels.goal(above)
        ready = mean <= levels.low + _ON_LEVEL if above else mean >= levels.high - _ON_LEVEL
        rows, knobs = (ready[:, None] & (side.missing(mean)[:, None] <= 1.5 * reach * slope.abs())).nonzero().unbind(dim=1)
        rays = torch.zeros(len(rows), space.dimension)
        rays[torch.arange(len(rows)), knobs] = slope[rows, knobs].sign() * (1.0 if above else -1.0)
        reached = along(surrogate, designs[rows], rays, side, space, torch.full((len(rows),), reach), _FEW_POINTS)
        there = reached.distance <= reach
        names = [space.names[knob] for knob in knobs[there].tolist()]
        found.append(Transitions.between(surrogate, levels, designs[rows][there], reached.designs[there], names, space))
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
    found = [Transitions.between(surrogate, levels, designs[:0], designs[:0], [], space)]
    for above in (True, False):
        slack = _ON_LEVEL
        start = designs[mean <= levels.low + slack if above else mean >= levels.high - slack]
        if len(start) == 0:
            continue
        side = levels.goal(above)
        singles = _alone(surrogate, start, side, space, reach)
        for indices, reached in zip(sets, _together(surrogate, start, sets, side, space, singles), strict=True):
            rows = reached.distance <= reach
            name = "+".join(space.names[i] for i in indices)
            ends, names = reached.designs[rows], [name] * int(rows.sum())
            found.append(Transitions.between(surrogate, levels, start[rows], ends, names, space))
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
    first, unit = nearest(surrogate, start, free, side, space, start), surrogate.scale.std.cpu()
    ends = first.designs[first.distance.isfinite()]
    others = min(rounds - 1, len(ends))
    if others < 1:
        return first.distance
    begin = ends[torch.cdist(start / unit, ends / unit).argsort(dim=1)[:, :others]]
    again = nearest(surrogate, _repeated(start, others), _repeated(free, others), side, space, begin.flatten(0, 1))
    return torch.minimum(first.distance, again.distance.reshape(len(start), others).amin(dim=1))


def _alone(surrogate: Surrogate, start: Float[Tensor, "n dx"], side: Side, space: DesignSpace, reach: float) -> list[Reached]:
    """For each knob the nearer crossing of its two directions."""
    count, size = space.dimension, len(start)
    rays = torch.cat([torch.eye(count), -torch.eye(count)])
    limit = torch.full((2 * count * size,), reach)
    found = along(surrogate, start.repeat(2 * count, 1), rays.repeat_interleave(size, dim=0), side, space, limit)
    halves = [Reached(*half) for half in zip(*(column.chunk(2) for column in found), strict=True)]
    both = _nearer(halves[0], halves[1])
    return [Reached(*part) for part in zip(*(column.split(size) for column in both), strict=True)]


def _together(
    surrogate: Surrogate,
    start: Float[Tensor, "n dx"],
    sets: Sequence[Sequence[int]],
    side: Side,
    space: DesignSpace,
    singles: Sequence[Reached],
) -> list[Reached]:
    """For each set the shortest of the crossings of its knobs alone, and of what searches of all from there find."""
    begins = [Reached(start, torch.full((len(start),), torch.inf)), *singles]
    # all searches at once: many small batches would take many times as long
    tasks = [(number, k) for number, one in enumerate(sets) if len(one) > 1 for k in (0, *(i + 1 for i in one))]
    found = list(singles[one[0]] for one in sets)
    if not tasks:
        return found
    free = torch.zeros(len(tasks), space.dimension, dtype=torch.bool)
    for row, (number, _) in enumerate(tasks):
        free[row, list(sets[number])] = True
    begin = torch.cat([torch.where(begins[k].distance.isfinite()[:, None], begins[k].designs, start) for _, k in tasks])
    again = nearest(surrogate, start.repeat(len(tasks), 1), _repeated(free, len(start)), side, space, begin)
    parts = zip(*(column.split(len(start)) for column in again), strict=True)
    for (number, k), part in zip(tasks, parts, strict=True):
        found[number] = _nearer(_nearer(found[number], begins[k]), Reached(*part))
    return found


def _nearer(first: Reached, second: Reached) -> Reached:
    """The shorter of two changes, row by row."""
    better = second.distance < first.distance
    designs = torch.where(better[:, None], second.designs, first.designs)
    return Reached(designs, torch.minimum(first.distance, second.distance))


def _repeated(rows: Tensor, times: int) -> Tensor:
    return rows.repeat_interleave(times, dim=0)


def _indices(space: DesignSpace, names: Sequence[str]) -> list[int]:
    if not names or isinstance(names, str):
        raise ConfigError(f"Expected a list of parameters that may change, got {names!r}: e.g. [b, electric_field].")
    return [space.index(name) for name in names]
