"""What designs can reach: the interval of each property that a target asks for, by optimisation from several starts."""

from __future__ import annotations

__all__ = ["Reach", "describe_reach", "find_reach"]

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from matdesinne.candidates import Candidates
from matdesinne.localization import Newton
from matdesinne.minimization import Descent
from matdesinne.objective import Objective
from matdesinne.selection import Selection
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property, Target

_DRAWN = 2048
"""Uniform designs among which the starts are chosen."""
_LOCALIZED = 128
"""Of these, so many nearest to the rest of the target are moved onto it, and as many with the lowest and highest values."""
_NEAR = 1024
"""The lowest and highest values are those among so many nearest to the rest."""
_STARTS = 16
"""Starts for each end of an interval."""
_EVALUATIONS = 60
_PATIENCE, _LEAST_GAIN = 10, 1e-3
"""An end is found when so many evaluations gain less than this share of the range of the starts."""
_SLACK = 1e-4
"""Distance to the rest of the target that counts as on it, in the unit of each property."""


@dataclass(frozen=True)
class Reach:
    """The interval of a property that was found; empty where no design keeps the rest of the target and the rules.

    Args:
        prop: the property.
        lower: smallest value that the surrogate predicts for a design, in the unit of the property.
        upper: largest value.
        alone: where it is empty, the interval without the rest of the target, or without rules where that is empty, too.
        dropped: what `alone` is without.
    """

    prop: Property
    lower: float
    upper: float
    alone: Reach | None = None
    dropped: str = ""

    def meets(self, lower: float, upper: float) -> bool:
        """Whether the interval has a value in common with another one."""
        return self.lower <= upper and self.upper >= lower

    @property
    def empty(self) -> bool:
        """Whether no value was found."""
        return self.lower > self.upper


def find_reach(
    surrogate: Surrogate,
    space: DesignSpace,
    target: Target,
    rules: Selection | None = None,
    within: tuple[float, float] | None = None,
) -> list[Reach]:
    """Find the lowest and the highest value of each property asked for that designs reach with the rest of the target held.

    Of 2,048 uniform designs the nearest to the rest of the target, and those of the lowest and highest values among the nearer
    half, are moved onto it, 256 in all, and the lowest and highest 16 of these start a `Descent` of the property, downwards and
    upwards. It is deterministic. The true interval is at least as wide. An end beyond the floor of a property is the floor.

    Args:
        surrogate: predicts the properties.
        space: bounded designs.
        target: of the surrogate's properties.
        rules: that designs keep.
        within: leave the ends as the starts have them where these lie on both sides of this interval, so that it is reached.

    Raises:
        ConfigError: if a bound is infinite.
    """
    designs = space.sample(_DRAWN, torch.Generator())
    mean, std = surrogate.predict_many(designs)
    everything = Candidates(space, surrogate.properties, designs, target, mean, std, "sampled")
    asked = target.asked_columns
    found = []
    for j in asked:
        reach = _reach_of(j, _starts(j, everything, _without(target, [j]), surrogate, rules), surrogate, rules, within)
        for kept, dropped in ((rules, "the rest of the target"), (None, "rules")):
            if reach.empty and (reach.alone is None or reach.alone.empty):
                starts = _starts(j, everything, _without(target, asked), surrogate, kept)
                reach = replace(reach, alone=_reach_of(j, starts, surrogate, kept, within), dropped=dropped)
        found.append(reach)
    return found


def describe_reach(found: Sequence[Reach], rules: bool) -> str:
    """Say in one sentence what designs reach."""
    held = " that keep the rest of the target" if len(found) > 1 else ""
    where = "within the bounds and rules" if rules else "within the bounds"
    return f"Designs {where}{held} reach {'; '.join(map(_words, found))} (predicted by the surrogate)."


def _words(reach: Reach) -> str:
    if not reach.empty:
        return f"{reach.prop.name} from {reach.lower:.4g} to {reach.upper:.4g}{reach.prop.suffix}"
    alone = "" if reach.alone is None or reach.alone.empty else f" ({_words(reach.alone)} without {reach.dropped})"
    return f"no {reach.prop.name}{alone}"


def _without(target: Target, columns: Sequence[int]) -> Target:
    lower, upper = list(target.lower), list(target.upper)
    for j in columns:
        lower[j], upper[j] = -torch.inf, torch.inf
    return Target(tuple(lower), tuple(upper))


def _reach_of(
    column: int, starts: Candidates, surrogate: Surrogate, rules: Selection | None, edges: tuple[float, float] | None
) -> Reach:
    """The interval of a property; an end is left as the starts have it where these lie on both sides of some edges."""
    prop = surrogate.properties[column]
    if len(starts) == 0:
        return Reach(prop, torch.inf, -torch.inf)
    y = starts.mean[:, column]
    lower, upper, order = y.min().item(), y.max().item(), y.argsort()
    if edges is not None and lower <= edges[1] and upper >= edges[0]:
        return Reach(prop, lower, upper)
    floor = -torch.inf if prop.floor is None else prop.floor
    if lower > floor:
        lower = _end(column, starts.take(order[:_STARTS]), surrogate, rules, "")
    upper = _end(column, starts.take(order.flip(0)[:_STARTS]), surrogate, rules, "-")
    return Reach(prop, max(lower, floor), max(upper, floor))


def _end(column: int, starts: Candidates, surrogate: Surrogate, rules: Selection | None, sign: str) -> float:
    """The lowest value of a property, or with a sign the highest one."""
    best, gain = [], _LEAST_GAIN * float(starts.mean[:, column].max() - starts.mean[:, column].min())

    def settled(candidates: Candidates) -> bool:
        best.append((candidates.mean[:, column].max() if sign else -candidates.mean[:, column].min()).item())
        return len(best) > _PATIENCE and best[-1] - best[-1 - _PATIENCE] <= gain

    objective = Objective(f"{sign}{surrogate.properties[column].name}")
    Descent(evaluations=_EVALUATIONS).descend(starts, surrogate, objective, rules, settled)
    return best[-1] if sign else -best[-1]


def _starts(column: int, designs: Candidates, rest: Target, surrogate: Surrogate, rules: Selection | None) -> Candidates:
    """Designs on the rest of the target that keep the rules."""
    designs = replace(designs, target=rest)
    if any(rest.asked):
        scale = designs.mean.std(dim=0).clamp_min(torch.finfo(designs.mean.dtype).tiny)
        distance = (designs.error / scale).square().sum(dim=1)
        near = distance.argsort()[:_NEAR]
        order = near[designs.mean[near, column].argsort()]
        chosen = torch.cat([near[:_LOCALIZED], order[: _LOCALIZED // 2], order[-_LOCALIZED // 2 :]]).unique()
        designs = Newton().localize(designs.take(chosen), surrogate)
        designs = designs.take((designs.error <= _SLACK).all(dim=1))
    designs = designs.take(designs.mean.isfinite().all(dim=1))
    return designs if rules is None or len(designs) == 0 else designs.take(rules.mask(designs))
