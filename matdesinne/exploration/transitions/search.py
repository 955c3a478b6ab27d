"""The searches for transitions: small changes of one knob, the shortest ones by knobs, and the distance from a level."""

from __future__ import annotations

__all__ = ["TransitionSearch", "distance_to_level", "move_to_levels", "shortest_transitions", "small_transitions"]

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.exploration.transitions.crossing import Crossings, Side, first_crossing, half_widths, nearest_crossing
from matdesinne.exploration.transitions.transition import ON_LEVEL, Levels, Transitions, best_first, distinct, joined
from matdesinne.localization import Newton
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target

_FEW_POINTS = 5
"""Points of a scan over a small change."""
_MARGIN = 1.2
"""The accurate surrogate looks at changes by the fast one that are at most this many times as long as a small change."""
_REACH = 2.0
"""Longest change of the shortest transitions, in half-widths of the box."""
_RESTARTS = 3
"""Number of other designs from whose ends the search for the distance of a design begins again."""


@dataclass(frozen=True)
class TransitionSearch:
    """Settings of a search for transitions.

    Args:
        levels: distances from the property's floor (0 if it has none), in its unit: a transition goes from at most -level
            to at least +level, or back.
        edges: number of generated designs of each target that are moved to these levels, to look for small changes there.
        small: longest small change of one knob, in half-widths of the box.
        refined: number of transitions of each level that the accurate surrogate looks at.
        apart: smallest distance of the starts of two different transitions, in half-widths of the box.
        starts: number of generated designs of each target for which the shortest transition of every kind is looked for.
        knobs: sets of parameters that may change in these; by default each alone, every pair, and all together.
        remote: number of generated designs of each target whose distance from any transition is found.
        best: number of transitions that are drawn, written as structures, and checked by an oracle.
    """

    levels: Sequence[float]
    edges: int
    small: float
    refined: int
    apart: float
    starts: int
    knobs: Sequence[Sequence[str]] | None
    remote: int
    best: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.levels or not all(level > 0 for level in self.levels) or not 0 < self.small <= 2:
            raise ConfigError(
                f"Expected transitions.levels above 0 and 0 < transitions.small <= 2, got {list(self.levels)} and {self.small}."
            )
        if min(self.edges, self.refined, self.starts, self.remote, self.best) < 1 or not self.apart >= 0:
            raise ConfigError("Expected numbers of at least 1 and apart of at least 0 in transitions, got less: raise them.")

    def small_changes(
        self, tables: Sequence[Float[Tensor, "n dx"]], surrogate: Surrogate, accurate: Surrogate | None = None
    ) -> Transitions:
        """Find distinct transitions by a small change of one knob, the best first.

        The fast surrogate moves designs to every level and finds the knobs that are steep there. The accurate one moves the
        starts for which the two differ least onto its own level and finds the crossing again. Their difference widens the
        spread of the prediction. There is one table of designs for each target.
        """
        designs = torch.cat([table[: self.edges] for table in tables])
        by_level = []
        for level in sorted(self.levels, reverse=True):
            levels = self._levels(surrogate, level)
            at_level = move_to_levels(surrogate, designs, levels)
            transitions = small_transitions(surrogate, at_level, levels, _MARGIN * self.small)
            if accurate is not None:
                transitions = self._refine(transitions, surrogate, accurate)
            by_level.append(transitions.take(transitions.size < self.small))
        return distinct(best_first(joined(by_level), self.small), self.apart)

    def _refine(self, transitions: Transitions, surrogate: Surrogate, accurate: Surrogate) -> Transitions:
        """Find transitions again with the accurate surrogate, from those starts for which the two surrogates differ least."""
        chosen = distinct(transitions.take(transitions.size.argsort(stable=True)), self.apart)
        difference = (accurate.predict_many(chosen.before)[0][:, 0] - chosen.value[:, 0]).abs()
        chosen = chosen.take(difference.argsort(stable=True)[: self.refined])
        at_level = move_to_levels(accurate, chosen.before, chosen.levels)
        again = small_transitions(accurate, at_level, chosen.levels, self.small)
        return Transitions.between(accurate, chosen.levels, again.before, again.after, again.knobs, other=surrogate)

    def shortest(self, tables: Sequence[Float[Tensor, "n dx"]], surrogate: Surrogate) -> Transitions:
        """Find the shortest transition of every design across the smallest level, for each set of knobs."""
        names = surrogate.space.names
        sets = self.knobs or [*combinations(names, 1), *combinations(names, 2), names]
        designs = torch.cat([table[: self.starts] for table in tables])
        return shortest_transitions(surrogate, designs, sets, self._levels(surrogate, min(self.levels)))

    def remotest(
        self, tables: Sequence[Float[Tensor, "n dx"]], surrogate: Surrogate
    ) -> tuple[Float[Tensor, "n dx"], Float[Tensor, " n"]]:
        """Returns generated designs and their distances from the floor of the property, the farthest first."""
        designs = torch.cat([table[: self.remote] for table in tables])
        distance = distance_to_level(surrogate, designs, _floor(surrogate))
        order = distance.argsort(descending=True, stable=True)
        return designs[order], distance[order]

    @staticmethod
    def _levels(surrogate: Surrogate, level: float) -> Levels:
        floor = _floor(surrogate)
        return Levels(floor - level, floor + level)


def _floor(surrogate: Surrogate) -> float:
    return surrogate.properties[0].floor or 0.0


def move_to_levels(surrogate: Surrogate, designs: Float[Tensor, "n dx"], levels: Levels) -> Float[Tensor, "m dx"]:
    """Move designs onto the level of their side by Newton's projection; those that do not arrive are left out."""
    mean, std = surrogate.predict_many(designs)
    upper = mean[:, 0] > levels.threshold
    arrived = [designs[:0]]
    for rows, level in ((~upper, levels.low), (upper, levels.high)):
        if rows.any():
            target = Target((level,), (level,)).aligned(surrogate.properties[:1], surrogate.properties)
            start = Candidates(surrogate.space, surrogate.properties, designs[rows], target, mean[rows], std[rows], "sampled")
            moved = Newton(ON_LEVEL / 10).localize(start, surrogate)
            arrived.append(moved.designs[moved.error[:, 0] <= ON_LEVEL])
    return torch.cat(arrived)


def small_transitions(surrogate: Surrogate, designs: Float[Tensor, "n dx"], levels: Levels, reach: float) -> Transitions:
    """Find transitions by a change of one knob of at most `reach` half-widths, for designs from `move_to_levels`.

    The search follows a knob in the direction of its slope if a linear property would cross within 1.5 times the reach.
    """
    at = surrogate.linearize(designs.to(surrogate.device))
    mean, slope = at.mean[:, 0].cpu(), at.jacobian[:, 0].cpu() * half_widths(surrogate)
    transitions = [Transitions.between(surrogate, levels, designs[:0], designs[:0], [])]
    for above in (True, False):
        side = levels.side(above)
        starts = levels.is_start(mean, above)
        rows, knobs = (starts[:, None] & (side.missing(mean)[:, None] <= 1.5 * reach * slope.abs())).nonzero().unbind(dim=1)
        rays = torch.zeros(len(rows), designs.shape[1])
        rays[torch.arange(len(rows)), knobs] = slope[rows, knobs].sign() * (1.0 if above else -1.0)
        limit = torch.full((len(rows),), reach)
        crossings = first_crossing(surrogate, designs[rows], rays, side, limit, _FEW_POINTS)
        near = crossings.distance <= reach
        names = [surrogate.space.names[knob] for knob in knobs[near].tolist()]
        transitions.append(Transitions.between(surrogate, levels, designs[rows][near], crossings.designs[near], names))
    return joined(transitions)


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
    """Returns for each set of knobs the nearest of their crossings alone and of those that searches from there find."""
    count, dimension = start.shape
    singles, distance = _single_knobs(surrogate, start, side)
    begins = torch.cat([start[None], torch.where(distance.isfinite()[..., None], singles, start)])
    # all searches at once: many small batches would take many times as long
    tasks = [(number, k) for number, knobs in enumerate(sets) if len(knobs) > 1 for k in (0, *(i + 1 for i in knobs))]
    masks = [[i in sets[number] for i in range(dimension)] for number, _ in tasks]
    free = torch.tensor(masks, dtype=torch.bool).reshape(-1, dimension).repeat_interleave(count, dim=0)
    begin = begins[torch.tensor([k for _, k in tasks], dtype=torch.long)].flatten(0, 1)
    again = nearest_crossing(surrogate, start.repeat(len(tasks), 1), free, side, begin)
    nearest = []
    for number, knobs in enumerate(sets):
        own = torch.tensor([task == number for task, _ in tasks], dtype=torch.bool)
        designs = torch.cat([singles[list(knobs)], again.designs.reshape(-1, count, dimension)[own]])
        best = torch.cat([distance[list(knobs)], again.distance.reshape(-1, count)[own]]).min(dim=0)
        nearest.append(Crossings(designs[best.indices, torch.arange(count)], best.values))
    return nearest


def _single_knobs(
    surrogate: Surrogate, start: Float[Tensor, "n dx"], side: Side
) -> tuple[Float[Tensor, "dx n dx"], Float[Tensor, "dx n"]]:
    """Returns for each knob the nearer crossing of its two directions, and its distance."""
    count, dimension = start.shape
    rays = torch.cat([torch.eye(dimension), -torch.eye(dimension)]).repeat_interleave(count, dim=0)
    crossings = first_crossing(surrogate, start.repeat(2 * dimension, 1), rays, side, torch.full((len(rays),), _REACH))
    up, down = crossings.distance.reshape(2, dimension, count)
    ends_up, ends_down = crossings.designs.reshape(2, dimension, count, dimension)
    return torch.where((up <= down)[..., None], ends_up, ends_down), torch.minimum(up, down)
