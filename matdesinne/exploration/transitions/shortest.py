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
from matdesinne.surrogates.base import Surrogate

_REACH = 2.0
"""Longest change, in half-widths of the box."""
_RESTARTS = 3
"""Number of other designs from whose ends the search for the distance of a design begins again."""


def shortest_transitions(
    surrogate: Surrogate, designs: Float[Tensor, "n dx"], knobs: Sequence[Sequence[str]], levels: Levels
) -> Transitions:
    """Find the smallest change to the other side, for every design that is on one side and every set of knobs.

    For one knob the search scans its whole range. For several it begins at the design and at the crossings of each of them
    alone, and keeps the shortest result.

    Raises:
        ConfigError: if a set is empty or names no parameter.
    """
    if any(not names or isinstance(names, str) for names in knobs):
        raise ConfigError(f"Expected lists of parameters that may change, got {list(knobs)}: e.g. [[b, electric_field]].")
    sets = [[surrogate.space.index(name) for name in names] for names in knobs]
    mean = surrogate.predict_many(designs)[0][:, 0]
    transitions = [Transitions.between(surrogate, levels, designs[:0], designs[:0], [])]
    for above in (True, False):
        start = designs[levels.is_start(mean, above)]
        if len(start) == 0:
            continue
        for names, crossings in zip(knobs, _knob_sets(surrogate, start, sets, levels.side(above)), strict=True):
            near = crossings.distance <= _REACH
            labels = ["+".join(names)] * int(near.sum())
            transitions.append(Transitions.between(surrogate, levels, start[near], crossings.designs[near], labels))
    return joined(transitions)


def distance_to_level(surrogate: Surrogate, designs: Float[Tensor, "n dx"], level: float) -> Float[Tensor, " n"]:
    """Returns the length of the smallest change of all parameters that takes the property across a level.

    The search begins at the design and then at the ends that it has found for the nearest other designs. The result is an upper
    bound of the minimum, in half-widths of the box, and infinite if the search finds no crossing.
    """
    below = surrogate.predict_many(designs)[0][:, 0] <= level
    distance = torch.full((len(designs),), torch.inf)
    for above, rows in ((True, below), (False, ~below)):
        if rows.any():
            distance[rows] = _restarted(surrogate, designs[rows], Side(level, above))
    return distance


def _restarted(surrogate: Surrogate, start: Float[Tensor, "n dx"], side: Side) -> Float[Tensor, " n"]:
    free = torch.ones_like(start, dtype=torch.bool)
    first, unit = nearest_crossing(surrogate, start, free, side, start), half_widths(surrogate)
    ends = first.designs[first.distance.isfinite()]
    others = min(_RESTARTS, len(ends))
    if others == 0:
        return first.distance
    begin = ends[torch.cdist(start / unit, ends / unit).argsort(dim=1)[:, :others]].flatten(0, 1)
    starts, free = start.repeat_interleave(others, dim=0), free.repeat_interleave(others, dim=0)
    again = nearest_crossing(surrogate, starts, free, side, begin)
    return torch.minimum(first.distance, again.distance.reshape(len(start), others).amin(dim=1))


def _knob_sets(
    surrogate: Surrogate, start: Float[Tensor, "n dx"], sets: Sequence[Sequence[int]], side: Side
) -> list[Crossings]:
    """Returns for each set of knobs the shortest of their crossings alone and of those that searches from there find."""
    singles = _single_knobs(surrogate, start, side)
    begins = [Crossings(start, torch.full((len(start),), torch.inf)), *singles]
    # all searches at once: many small batches would take many times as long
    tasks = [(number, k) for number, knobs in enumerate(sets) if len(knobs) > 1 for k in (0, *(i + 1 for i in knobs))]
    shortest = [singles[knobs[0]] for knobs in sets]
    if not tasks:
        return shortest
    free = torch.zeros(len(tasks), start.shape[1], dtype=torch.bool)
    for row, (number, _) in enumerate(tasks):
        free[row, list(sets[number])] = True
    begin = torch.cat([torch.where(begins[k].distance.isfinite()[:, None], begins[k].designs, start) for _, k in tasks])
    free = free.repeat_interleave(len(start), dim=0)
    again = nearest_crossing(surrogate, start.repeat(len(tasks), 1), free, side, begin)
    for (number, k), crossings in zip(tasks, _split(again, len(start)), strict=True):
        shortest[number] = _nearer(_nearer(shortest[number], begins[k]), crossings)
    return shortest


def _single_knobs(surrogate: Surrogate, start: Float[Tensor, "n dx"], side: Side) -> list[Crossings]:
    """Returns for each knob the nearer crossing of its two directions."""
    size, count = start.shape
    rays = torch.cat([torch.eye(count), -torch.eye(count)]).repeat_interleave(size, dim=0)
    crossings = first_crossing(surrogate, start.repeat(2 * count, 1), rays, side, torch.full((len(rays),), _REACH))
    return _split(_nearer(*_split(crossings, count * size)), size)


def _split(crossings: Crossings, size: int) -> list[Crossings]:
    return [Crossings(*part) for part in zip(*(column.split(size) for column in crossings), strict=True)]


def _nearer(first: Crossings, second: Crossings) -> Crossings:
    """Returns the nearer crossing of two, row by row."""
    better = second.distance < first.distance
    designs = torch.where(better[:, None], second.designs, first.designs)
    return Crossings(designs, torch.minimum(first.distance, second.distance))
