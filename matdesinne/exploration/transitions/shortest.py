"""The shortest transitions of designs, by the knobs that may change, and the distance of designs from a level."""

from __future__ import annotations

__all__ = ["distance_to_level", "shortest_transitions"]

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.exploration.transitions.crossing import Crossings, Side, first_crossing, half_widths, nearest_crossing
from matdesinne.exploration.transitions.transition import Levels, Transitions, joined
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate


def shortest_transitions(
    surrogate: Surrogate,
    designs: Float[Tensor, "n dx"],
    knobs: Sequence[Sequence[str]],
    levels: Levels,
    space: DesignSpace | None = None,
    reach: float = 2.0,
) -> Transitions:
    """Find the smallest change to the other side, for every design that is on one side and every set of knobs.

    For one knob the search scans its whole range. For several it begins at the design and at the crossings of each of them
    alone, and keeps the shortest result.

    Raises:
        ConfigError: if a set is empty or names no parameter.
    """
    space = space or surrogate.space
    sets = [_indices(space, names) for names in knobs]
    mean = surrogate.predict_many(designs)[0][:, 0]
    transitions = [Transitions.between(surrogate, levels, designs[:0], designs[:0], [], space)]
    for above in (True, False):
        start = designs[levels.is_start(mean, above)]
        if len(start) == 0:
            continue
        side = levels.side(above)
        singles = _single_knobs(surrogate, start, side, space, reach)
        for indices, crossings in zip(sets, _knob_sets(surrogate, start, sets, side, space, singles), strict=True):
            near = crossings.distance <= reach
            names = ["+".join(space.names[i] for i in indices)] * int(near.sum())
            transitions.append(Transitions.between(surrogate, levels, start[near], crossings.designs[near], names, space))
    return joined(transitions)


def distance_to_level(
    surrogate: Surrogate, designs: Float[Tensor, "n dx"], level: float, space: DesignSpace | None = None, rounds: int = 4
) -> Float[Tensor, " n"]:
    """Returns the length of the smallest change of all parameters that takes the property across a level.

    The search begins at the design and then at the ends that it has found for the nearest other designs. The result is an upper
    bound of the minimum, in half-widths of the box, and infinite if the search finds no crossing.
    """
    space = space or surrogate.space
    below = surrogate.predict_many(designs)[0][:, 0] <= level
    distance = torch.full((len(designs),), torch.inf)
    for side, rows in ((Side(level, True), below), (Side(level, False), ~below)):
        if rows.any():
            distance[rows] = _restarted(surrogate, designs[rows], side, space, rounds)
    return distance


def _restarted(
    surrogate: Surrogate, start: Float[Tensor, "n dx"], side: Side, space: DesignSpace, rounds: int
) -> Float[Tensor, " n"]:
    free = torch.ones_like(start, dtype=torch.bool)
    first, unit = nearest_crossing(surrogate, start, free, side, space, start), half_widths(surrogate)
    ends = first.designs[first.distance.isfinite()]
    others = min(rounds - 1, len(ends))
    if others < 1:
        return first.distance
    begin = ends[torch.cdist(start / unit, ends / unit).argsort(dim=1)[:, :others]]
    again = nearest_crossing(surrogate, _repeat(start, others), _repeat(free, others), side, space, begin.flatten(0, 1))
    return torch.minimum(first.distance, again.distance.reshape(len(start), others).amin(dim=1))


def _single_knobs(
    surrogate: Surrogate, start: Float[Tensor, "n dx"], side: Side, space: DesignSpace, reach: float
) -> list[Crossings]:
    """Returns for each knob the nearer crossing of its two directions."""
    count, size = space.dimension, len(start)
    rays = torch.cat([torch.eye(count), -torch.eye(count)])
    limit = torch.full((2 * count * size,), reach)
    crossings = first_crossing(surrogate, start.repeat(2 * count, 1), _repeat(rays, size), side, space, limit)
    up, down = _split(crossings, count * size)
    return _split(_nearer(up, down), size)


def _knob_sets(
    surrogate: Surrogate,
    start: Float[Tensor, "n dx"],
    sets: Sequence[Sequence[int]],
    side: Side,
    space: DesignSpace,
    singles: Sequence[Crossings],
) -> list[Crossings]:
    """Returns for each set of knobs the shortest of their crossings alone and of those that searches from there find."""
    begins = [Crossings(start, torch.full((len(start),), torch.inf)), *singles]
    # all searches at once: many small batches would take many times as long
    tasks = [(number, k) for number, knobs in enumerate(sets) if len(knobs) > 1 for k in (0, *(i + 1 for i in knobs))]
    shortest = [singles[knobs[0]] for knobs in sets]
    if not tasks:
        return shortest
    free = torch.zeros(len(tasks), space.dimension, dtype=torch.bool)
    for row, (number, _) in enumerate(tasks):
        free[row, list(sets[number])] = True
    begin = torch.cat([torch.where(begins[k].distance.isfinite()[:, None], begins[k].designs, start) for _, k in tasks])
    again = nearest_crossing(surrogate, start.repeat(len(tasks), 1), _repeat(free, len(start)), side, space, begin)
    for (number, k), crossings in zip(tasks, _split(again, len(start)), strict=True):
        shortest[number] = _nearer(_nearer(shortest[number], begins[k]), crossings)
    return shortest


def _split(crossings: Crossings, size: int) -> list[Crossings]:
    return [Crossings(*part) for part in zip(*(column.split(size) for column in crossings), strict=True)]


def _nearer(first: Crossings, second: Crossings) -> Crossings:
    """Returns the nearer crossing of two, row by row."""
    better = second.distance < first.distance
    designs = torch.where(better[:, None], second.designs, first.designs)
    return Crossings(designs, torch.minimum(first.distance, second.distance))


def _repeat(rows: Tensor, times: int) -> Tensor:
    return rows.repeat_interleave(times, dim=0)


def _indices(space: DesignSpace, names: Sequence[str]) -> list[int]:
    if not names or isinstance(names, str):
        raise ConfigError(f"Expected a list of parameters that may change, got {names!r}: e.g. [b, electric_field].")
    return [space.index(name) for name in names]
