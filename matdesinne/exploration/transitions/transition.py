"""Transitions: pairs of designs on both sides of a property's threshold that differ by little."""

from __future__ import annotations

__all__ = ["Levels", "Transitions", "best_first", "distinct", "joined"]

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.exploration.transitions.nearest import Side
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property


@dataclass(frozen=True)
class Levels:
    """The two sides of a transition, e.g. metals and semiconductors.

    Args:
        low: largest value of the lower side, in the unit of the property.
        high: smallest value of the upper side.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Check the order."""
        if not self.low < self.high:
            raise ConfigError(f"Expected the level of the lower side below the upper one, got {self.low} and {self.high}.")

    @property
    def threshold(self) -> float:
        """What separates the sides in truth: their middle."""
        return (self.low + self.high) / 2

    def goal(self, above: bool) -> Side:
        """The upper or the lower side."""
        return Side(self.high if above else self.low, above)


@dataclass(frozen=True)
class Transitions:
    r"""Pairs of designs with the property on either side of a threshold.

    The probability that a transition is real is :math:`P = P_0 + P_1 - 1` with the probabilities :math:`P_0, P_1` that either
    end is on its side of the threshold, from the calibrated spread (see `Surrogate.content`), errors of either sign being
    equally likely. The errors of two ends that are near each other are almost equal; for equal errors P is exact, because an
    error cannot spoil both ends, and for any other dependence it is a lower bound (Fréchet's).

    Args:
        space: names, units and bounds of the designs.
        prop: what changes.
        levels: the sides.
        unit: half-widths of the box, in physical units, shape [dx].
        before: the starts, in physical units.
        after: the ends.
        knobs: for each row, the parameters that were free to change.
        value: the property before and after, shape [n, 2].
        std: its spread, shape [n, 2].
        probability: that the transition is real, shape [n].
    """

    space: DesignSpace
    prop: Property
    levels: Levels
    unit: Float[Tensor, " dx"]
    before: Float[Tensor, "n dx"]
    after: Float[Tensor, "n dx"]
    knobs: Sequence[str]
    value: Float[Tensor, "n 2"]
    std: Float[Tensor, "n 2"]
    probability: Float[Tensor, " n"]

    def __len__(self) -> int:
        """Number of transitions."""
        return len(self.before)

    @classmethod
    def between(
        cls,
        surrogate: Surrogate,
        levels: Levels,
        before: Float[Tensor, "n dx"],
        after: Float[Tensor, "n dx"],
        knobs: Sequence[str],
        space: DesignSpace | None = None,
        other: Surrogate | None = None,
    ) -> Transitions:
        """Pairs as a surrogate sees them.

        The calibrated spread is an average over designs. Where another surrogate says something else, the error is larger: with
        one, the difference of the two is added to the spread in quadrature.

        Args:
            surrogate: predicts the property at both ends.
            levels: the sides.
            before: the starts, in physical units.
            after: the ends.
            knobs: for each row, the parameters that were free to change, joined by ``+``.
            space: the surrogate's, maybe with narrower bounds.
            other: a surrogate of another kind for the same property.
        """
        ends = [surrogate.predict_many(x) for x in (before, after)]
        value, std = (torch.stack([end[k][:, 0] for end in ends], dim=1) for k in range(2))
        if other is not None:
            second = torch.stack([other.predict_many(x)[0][:, 0] for x in (before, after)], dim=1)
            std = torch.hypot(std, second - value)
        upper = value[:, 1:] > value[:, :1]
        rising = torch.cat([~upper, upper], dim=1)
        margin = torch.where(rising, value - levels.threshold, levels.threshold - value)
        content = torch.stack(
            [surrogate.coverage(std[:, k : k + 1], margin[:, k : k + 1].abs())[:, 0] for k in range(2)], dim=1
        )
        right = 0.5 + 0.5 * content * margin.sign()
        unit = surrogate.scale.std.detach().cpu().clone()
        probability = (right.sum(dim=1) - 1).clamp_min(0.0)
        return cls(
            space or surrogate.space, surrogate.properties[0], levels, unit, before, after, list(knobs), value, std, probability
        )

    @property
    def change(self) -> Float[Tensor, "n dx"]:
        """Of every parameter, in half-widths of the box."""
        return (self.after - self.before) / self.unit

    @property
    def size(self) -> Float[Tensor, " n"]:
        """Length of the change, in half-widths of the box."""
        return self.change.norm(dim=1)

    @property
    def rises(self) -> Bool[Tensor, " n"]:
        """Whether the property goes up: from metal to semiconductor."""
        return self.value[:, 1] > self.value[:, 0]

    def take(self, rows: Int[Tensor, " m"] | Bool[Tensor, " n"]) -> Transitions:
        """Keep some rows, in the order given."""
        numbers = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
        return replace(
            self,
            before=self.before[numbers],
            after=self.after[numbers],
            knobs=[self.knobs[row] for row in numbers.tolist()],
            value=self.value[numbers],
            std=self.std[numbers],
            probability=self.probability[numbers],
        )

    def columns(self) -> dict[str, tuple[str, Sequence[object]]]:
        """The table as ``{name: (unit, values)}``: both ends, every change in its unit and relative to the start."""
        gap = self.prop.name
        table: dict[str, tuple[str, Sequence[object]]] = {
            "knobs": ("", list(self.knobs)),
            "direction": ("", ["up" if up else "down" for up in self.rises.tolist()]),
            "size": ("half-widths of the box", self.size.tolist()),
            "probability": ("1", self.probability.tolist()),
        }
        for k, end in enumerate(("before", "after")):
            table[f"{gap}_{end}"] = (self.prop.unit, self.value[:, k].tolist())
            table[f"{gap}_std_{end}"] = (self.prop.unit, self.std[:, k].tolist())
        for i, parameter in enumerate(self.space.parameters):
            start, end_value = self.before[:, i].double(), self.after[:, i].double()
            table[f"{parameter.name}_before"] = (parameter.unit, start.tolist())
            table[f"{parameter.name}_after"] = (parameter.unit, end_value.tolist())
            table[f"{parameter.name}_change"] = (parameter.unit, (end_value - start).tolist())
            if parameter.reference != 0:
                table[f"{parameter.name}_change_percent"] = ("%", (100 * (end_value / start - 1)).tolist())
        return table


def best_first(transitions: Transitions, small: float) -> Transitions:
    """The changes below a size first, the most probable of them first; then the others by their size.

    Probabilities that agree to a hundredth are equal; of these the smaller change comes first.

    Args:
        transitions: to be ordered.
        small: size below which a change counts as small, in half-widths of the box.
    """
    by_size = transitions.take(transitions.size.argsort(stable=True))
    key = torch.where(by_size.size < small, -1.0 - by_size.probability.round(decimals=2), 0.0)
    return by_size.take(key.argsort(stable=True))


def distinct(transitions: Transitions, apart: float) -> Transitions:
    """Of transitions whose starts, or images of them under the symmetries, are near each other, keep the first.

    Args:
        transitions: in the order of preference.
        apart: smallest distance of two starts, in half-widths of the box.
    """
    places = transitions.before / transitions.unit
    images = transitions.space.images(transitions.before) / transitions.unit
    kept: list[int] = []
    for row in range(len(transitions)):
        if not kept or torch.cdist(places[row : row + 1], images[kept].flatten(0, 1)).min() > apart:
            kept.append(row)
    return transitions.take(torch.tensor(kept, dtype=torch.long))


def joined(parts: Sequence[Transitions]) -> Transitions:
    """One table after the other; the levels are those of the first."""
    return replace(
        parts[0],
        before=torch.cat([part.before for part in parts]),
        after=torch.cat([part.after for part in parts]),
        knobs=[knob for part in parts for knob in part.knobs],
        value=torch.cat([part.value for part in parts]),
        std=torch.cat([part.std for part in parts]),
        probability=torch.cat([part.probability for part in parts]),
    )
