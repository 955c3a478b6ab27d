"""What is looked for among generated designs: small transitions, the shortest of every kind, designs far from all."""

from __future__ import annotations

__all__ = ["TransitionSearch"]

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.exploration.transitions.crossing import at_edges, remoteness, shortest_transitions, small_transitions
from matdesinne.exploration.transitions.transition import Levels, Transitions, best_first, distinct, joined
from matdesinne.surrogates.base import Surrogate

_ROOM = 1.2
"""How much longer than a small change one by the fast surrogate may be that the accurate one looks at."""


@dataclass(frozen=True)
class TransitionSearch:
    """Settings of a search for transitions.

    Args:
        levels: distances from the property's floor (0 where it has none), in its unit: a transition goes from at most -level
            to at least +level, or back.
        edges: generated designs of each target that are moved to these levels, to look for small changes of one knob there.
        small: longest of these changes, in half-widths of the box.
        refined: for each level, how many the accurate surrogate looks at.
        apart: smallest distance of the starts of two different transitions, in half-widths of the box.
        starts: generated designs of each target for which the shortest transition of every kind is looked for.
        knobs: sets of parameters that may change in these; each alone, every pair, and all together when omitted.
        remote: generated designs of each target whose distance from any transition is found.
        best: transitions that are drawn, written as structures, and checked by an oracle.
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

    def small_changes(self, tables: Sequence[Float[Tensor, "n dx"]], surrogate: Surrogate, accurate: Surrogate) -> Transitions:
        """Distinct transitions by a small change of one knob, the best first, as the accurate surrogate sees them.

        The fast surrogate moves designs to every level and finds the knobs that are steep there. The accurate one moves those
        starts for which it agrees best onto its own level and finds the crossing again; where the two differ its error is
        larger, and so is the spread.

        Args:
            tables: generated designs for one target each.
            surrogate: the fast one.
            accurate: the other; the same where there is none.
        """
        designs = torch.cat([table[: self.edges] for table in tables])
        found = []
        for level in sorted(self.levels, reverse=True):
            sides = self.sides(surrogate, level)
            edges = at_edges(surrogate, designs, sides, surrogate.space)
            rough = small_transitions(surrogate, edges, sides, _ROOM * self.small)
            if accurate is not surrogate:
                chosen = distinct(rough.take(rough.size.argsort(stable=True)), self.apart)
                differing = (accurate.predict_many(chosen.before)[0][:, 0] - chosen.value[:, 0]).abs()
                chosen = chosen.take(differing.argsort(stable=True)[: self.refined])
                edges = at_edges(accurate, chosen.before, sides, accurate.space)
                sharp = small_transitions(accurate, edges, sides, self.small)
                rough = Transitions.between(accurate, sides, sharp.before, sharp.after, sharp.knobs, other=surrogate)
            found.append(rough.take(rough.size < self.small))
        return distinct(best_first(joined(found), self.small), self.apart)

    def shortest(self, tables: Sequence[Float[Tensor, "n dx"]], surrogate: Surrogate) -> Transitions:
        """The shortest transition of every design across the smallest level, for each set of knobs.

        Args:
            tables: the starts, in physical units.
            surrogate: predicts the property.
        """
        names = surrogate.space.names
        sets = self.knobs or [*combinations(names, 1), *combinations(names, 2), names]
        designs = torch.cat([table[: self.starts] for table in tables])
        return shortest_transitions(surrogate, designs, sets, self.sides(surrogate, min(self.levels)))

    def remotest(
        self, tables: Sequence[Float[Tensor, "n dx"]], surrogate: Surrogate
    ) -> tuple[Float[Tensor, "n dx"], Float[Tensor, " n"]]:
        """Generated designs and how far they are from the floor of the property, the farthest first.

        Args:
            tables: generated designs for one target each.
            surrogate: predicts the property.
        """
        designs = torch.cat([table[: self.remote] for table in tables])
        far = remoteness(surrogate, designs, self._centre(surrogate))
        order = far.argsort(descending=True, stable=True)
        return designs[order], far[order]

    def sides(self, surrogate: Surrogate, level: float) -> Levels:
        """The sides at a distance from the floor."""
        centre = self._centre(surrogate)
        return Levels(centre - level, centre + level)

    @staticmethod
    def _centre(surrogate: Surrogate) -> float:
        return surrogate.properties[0].floor or 0.0
