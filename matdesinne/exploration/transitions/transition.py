"""Transitions: pairs of similar designs on either side of a threshold of a property."""

from __future__ import annotations

__all__ = ["ON_LEVEL", "Levels", "Transitions", "best_first", "distinct", "joined"]

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.exploration.transitions.crossing import Side, half_widths
from matdesinne.files import Columns
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property

ON_LEVEL = 1e-4
"""Largest distance from a level at which a design counts as on it, in the unit of the property."""
_TENSORS = ("before", "after", "value", "std", "probability")
"""Fields of `Transitions` with one row for each transition, beside the knobs."""


@dataclass(frozen=True)
class Levels:
    """The two sides of a transition, e.g. metals and semiconductors: at most `low`, or at least `high`."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Check the order."""
        if not self.low < self.high:
            raise ConfigError(f"Expected the level of the lower side below the upper one, got {self.low} and {self.high}.")

    @property
    def threshold(self) -> float:
        """The middle of the two levels, which separates the sides in truth."""
        return (self.low + self.high) / 2

    def side(self, above: bool) -> Side:
        """Returns the upper side, or the lower one."""
        return Side(self.high if above else self.low, above)

    def is_start(self, y: Float[Tensor, " n"], above: bool) -> Bool[Tensor, " n"]:
        """Returns a mask of the values from which a transition to the upper side begins, or to the lower one."""
        return y <= self.low + ON_LEVEL if above else y >= self.high - ON_LEVEL


@dataclass(frozen=True)
class Transitions:
    r"""Pairs of designs with the property on either side of a threshold.

    The probability that a transition is real is :math:`P = P_0 + P_1 - 1`, where :math:`P_0` and :math:`P_1` are the
    probabilities that each end is on its side of the threshold. They come from the calibrated spread (see
    `Surrogate.coverage`), with errors of either sign equally likely. Ends that are near each other have almost
    equal errors. For equal errors P is exact, because no error puts both ends on the wrong side; otherwise it is a lower bound
    (Fréchet's inequality).

    Args:
        space: the design space.
        prop: the property that changes.
        levels: the levels of the two sides.
        half_width: half-widths of the box, in physical units.
        before: the starts, in physical units.
        after: the ends.
        knobs: for each row, the parameters that were free to change, joined by ``+``.
        value: predicted property before and after.
        std: spread of the prediction.
        probability: probability that the transition is real.
    """

    space: DesignSpace
    prop: Property
    levels: Levels
    half_width: Float[Tensor, " dx"]
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
        other: Surrogate | None = None,
    ) -> Transitions:
        """Predict the property at both ends, and the probability that the transitions are real.

        The calibrated spread is an average over designs; where another surrogate of the property disagrees, the error is
        larger. The difference of the two is therefore added to the spread in quadrature.
        """
        predictions = [surrogate.predict_many(x) for x in (before, after)]
        value, std = (torch.stack([column[:, 0] for column in columns], dim=1) for columns in zip(*predictions, strict=True))
        if other is not None:
            second = torch.stack([other.predict_many(x)[0][:, 0] for x in (before, after)], dim=1)
            std = torch.hypot(std, second - value)
        rises = value[:, 1:] > value[:, :1]
        is_upper = torch.cat([~rises, rises], dim=1)
        margin = torch.where(is_upper, value - levels.threshold, levels.threshold - value)
        # the calibration has a column for each property of the surrogate
        wide = (-1, len(surrogate.properties))
        ends = ((std[:, [k]].expand(wide), margin[:, [k]].abs().expand(wide)) for k in range(2))
        coverage = torch.stack([surrogate.coverage(spread, size)[:, 0] for spread, size in ends], dim=1)
        on_its_side = 0.5 + 0.5 * coverage * margin.sign()
        probability = (on_its_side.sum(dim=1) - 1).clamp_min(0.0)
        prop, width = surrogate.properties[0], half_widths(surrogate)
        return cls(surrogate.space, prop, levels, width, before, after, list(knobs), value, std, probability)

    @property
    def change(self) -> Float[Tensor, "n dx"]:
        """Change of every parameter, in half-widths of the box."""
        return (self.after - self.before) / self.half_width

    @property
    def size(self) -> Float[Tensor, " n"]:
        """Length of the change, in half-widths of the box."""
        return self.change.norm(dim=1)

    @property
    def rises(self) -> Bool[Tensor, " n"]:
        """Whether the property increases, e.g. from a metal to a semiconductor."""
        return self.value[:, 1] > self.value[:, 0]

    def sizes(self, knobs: str) -> Float[Tensor, " m"]:
        """Returns the sizes of the changes of a set of knobs, in half-widths of the box."""
        return self.size[torch.tensor([name == knobs for name in self.knobs])]

    def take(self, rows: Int[Tensor, " m"] | Bool[Tensor, " n"]) -> Transitions:
        """Keep some rows, given by a mask or by their numbers."""
        numbers = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
        columns = {name: getattr(self, name)[numbers] for name in _TENSORS}
        return replace(self, knobs=[self.knobs[row] for row in numbers.tolist()], **columns)

    def columns(self) -> Columns:
        """Returns ``{name: (unit, values)}`` with both ends, and every change in its unit and relative to the start."""
        table: dict[str, tuple[str, Sequence[object]]] = {
            "knobs": ("", list(self.knobs)),
            "direction": ("", ["up" if up else "down" for up in self.rises.tolist()]),
            "size": ("half-widths of the box", self.size.tolist()),
            "probability": ("1", self.probability.tolist()),
        }
        for k, end in enumerate(("before", "after")):
            table[f"{self.prop.name}_{end}"] = (self.prop.unit, self.value[:, k].tolist())
            table[f"{self.prop.name}_std_{end}"] = (self.prop.unit, self.std[:, k].tolist())
        for i, parameter in enumerate(self.space.parameters):
            start, end_value = self.before[:, i].double(), self.after[:, i].double()
            table[f"{parameter.name}_before"] = (parameter.unit, start.tolist())
            table[f"{parameter.name}_after"] = (parameter.unit, end_value.tolist())
            table[f"{parameter.name}_change"] = (parameter.unit, (end_value - start).tolist())
            if parameter.reference != 0:
                table[f"{parameter.name}_change_percent"] = ("%", (100 * (end_value / start - 1)).tolist())
        return table


def best_first(transitions: Transitions, small: float) -> Transitions:
    """Order transitions: first the small ones, the most probable first, and then the others by their size.

    Probabilities are rounded to a hundredth; of equal ones the smaller change comes first.
    """
    by_size = transitions.take(transitions.size.argsort(stable=True))
    key = torch.where(by_size.size < small, -1.0 - by_size.probability.round(decimals=2), 0.0)
    return by_size.take(key.argsort(stable=True))


def distinct(transitions: Transitions, apart: float) -> Transitions:
    """Keep the first of those transitions whose starts, or images of them under the symmetries, are near each other."""
    starts = transitions.before / transitions.half_width
    images = transitions.space.images(transitions.before) / transitions.half_width
    kept: list[int] = []
    for row in range(len(transitions)):
        if not kept or torch.cdist(starts[row : row + 1], images[kept].flatten(0, 1)).min() > apart:
            kept.append(row)
    return transitions.take(torch.tensor(kept, dtype=torch.long))


def joined(parts: Sequence[Transitions]) -> Transitions:
    """Join tables of transitions; the levels are those of the first table."""
    columns: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in _TENSORS}
    return replace(parts[0], knobs=[knob for part in parts for knob in part.knobs], **columns)
