"""The search for transitions among generated designs, and that for small changes of one knob."""

from __future__ import annotations

__all__ = ["TransitionSearch", "move_to_levels", "small_transitions"]

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.exploration.transitions.crossing import first_crossing, half_widths
from matdesinne.exploration.transitions.shortest import distance_to_level, shortest_transitions
from matdesinne.exploration.transitions.transition import ON_LEVEL, Levels, Transitions, best_first, distinct, joined
from matdesinne.localization import Newton
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target

_FEW_POINTS = 5
"""Points of a scan over a small change."""
_MARGIN = 1.2
"""The accurate surrogate looks at changes by the fast one that are at most this many times as long as a small change."""


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
            target = Target((level,), (level,))
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
