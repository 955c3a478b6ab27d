"""What a design may be inside its bounds: levels, categories, and parameters that add up to a total."""

from __future__ import annotations

__all__ = ["SUM_ROUNDING", "Constraints", "shift_to_sum"]

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from matdesinne.errors import ConfigError, DatasetError
from matdesinne.parameters import Mixture, Parameter

SUM_ROUNDING = 2e-3
"""Relative error of the sum of a mixture in a table, whose entries are rounded."""
_BISECTIONS = 60
_FLIPPED = 3
"""Discrete parameters whose second nearest value is tried, too: those that are nearest to the middle between two."""
_MOST_ROUNDS = 200


@dataclass(frozen=True)
class Constraints:
    """The constraints on the columns of a design, all of it in physical units.

    Args:
        parameters: of the columns.
        levels: the allowed values of discrete columns, by the number of the column.
        categories: the columns of 0 or 1 of each category, by its name.
        mixtures: columns and their sum.
    """

    parameters: Sequence[Parameter]
    levels: Mapping[int, Sequence[float]]
    categories: Mapping[str, Sequence[int]]
    mixtures: Sequence[tuple[Sequence[int], float]]

    @classmethod
    def of(cls, parameters: Sequence[Parameter], mixtures: Sequence[Mixture]) -> Constraints:
        """Collect the constraints.

        Raises:
            ConfigError: if a mixture names a parameter that is unknown, discrete, unbounded or in another mixture, or its sum
                cannot be reached within the bounds.
        """
        place = {parameter.name: i for i, parameter in enumerate(parameters)}
        used = [name for mixture in mixtures for name in mixture.names]
        for name in used:
            known = name in place and used.count(name) == 1
            if not known or parameters[place[name]].values or not parameters[place[name]].bounded:
                raise ConfigError(
                    f"Expected bounded continuous parameters in mixtures, each in one of them, got {name!r}: correct it."
                )
        groups = [([place[name] for name in mixture.names], float(mixture.total)) for mixture in mixtures]
        for columns, total in groups:
            low, high = sum(parameters[i].lower for i in columns), sum(parameters[i].upper for i in columns)
            rounding = 1e-6 * max(abs(low), abs(high))
            if not low - rounding <= total <= high + rounding:
                names = [parameters[i].name for i in columns]
                raise ConfigError(f"Expected bounds of {names} that allow a sum of {total:g}, got {low:g} to {high:g}.")
        levels = {i: parameter.values for i, parameter in enumerate(parameters) if parameter.values}
        categories: dict[str, list[int]] = {}
        for i, parameter in enumerate(parameters):
            if parameter.category:
                categories.setdefault(parameter.category, []).append(i)
        return cls(parameters, levels, categories, groups)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.levels or self.categories or self.mixtures)

    def free(self, between_levels: bool = False) -> Bool[Tensor, " dx"]:
        """Columns that may move continuously; the discrete ones, too, where a design may lie `between_levels`."""
        held = [*itertools.chain(*self.categories.values()), *(() if between_levels else self.levels)]
        mask = torch.ones(len(self.parameters), dtype=torch.bool)
        mask[held] = False
        return mask

    def snap(self, x: Float[Tensor, "*n dx"]) -> Float[Tensor, "*n dx"]:
        """Return the nearest allowed design of each."""
        low, high = self._bounds(x)
        near = torch.minimum(torch.maximum(self.onto_sums(x), low), high)
        for i in self.levels:
            near[..., i] = self._two_nearest(x[..., i], i)[0]
        for columns in self.categories.values():
            allowed = x[..., columns].masked_fill(high[columns] == 0, -torch.inf)
            near[..., columns] = functional.one_hot(allowed.argmax(dim=-1), len(columns)).to(x)
        return near

    def onto_sums(self, x: Float[Tensor, "*n dx"]) -> Float[Tensor, "*n dx"]:
        """Shift the parameters of each mixture to their sum, within the bounds."""
        low, high = self._bounds(x.double())
        for columns, total in self.mixtures:
            shifted = shift_to_sum(x[..., columns].double(), low[columns], high[columns], total)
            x = x.index_copy(-1, torch.tensor(columns, device=x.device), shifted.to(x))
        return x

    def tangent(
        self, jacobian: Float[Tensor, "n dy dx"], unit: Float[Tensor, " dx"], held: Bool[Tensor, "n dx"]
    ) -> Float[Tensor, "n dy dx"]:
        """Project derivatives with respect to x / unit onto the changes that keep every sum, without the held columns."""
        for columns, _ in self.mixtures:
            normal = (unit[columns] * ~held[:, columns]).unsqueeze(1)
            part = jacobian[:, :, columns].masked_fill(held[:, None, columns], 0.0)
            along = (part * normal).sum(dim=-1, keepdim=True) / normal.square().sum(dim=-1, keepdim=True).clamp_min(1e-30)
            jacobian = jacobian.index_copy(-1, torch.tensor(columns, device=part.device), part - along * normal)
        return jacobian

    def neighbours(self, x: Float[Tensor, "n dx"]) -> list[Float[Tensor, "n dx"]]:
        """Return the nearest allowed designs, and those that have the second nearest value of up to three parameters."""
        first = self.snap(x)
        columns = [i for i, values in self.levels.items() if len(values) > 1]
        if not columns:
            return [first]
        near, second = (torch.stack(parts, 1) for parts in zip(*(self._two_nearest(x[:, i], i) for i in columns), strict=True))
        low, high = self._bounds(x)
        extra = ((second - x[:, columns]).abs() - (near - x[:, columns]).abs()) / (high - low)[columns]
        cheapest = extra.argsort(dim=1)[:, :_FLIPPED]
        found = [first]
        for chosen in itertools.product([False, True], repeat=cheapest.shape[1]):
            if any(chosen):
                flip = torch.zeros_like(near, dtype=torch.bool)
                flip.scatter_(1, cheapest[:, torch.tensor(chosen, device=x.device)], True)
                other = first.clone()
                other[:, columns] = torch.where(flip, second, near)
                found.append(other)
        return found

    def sample(self, unit: Float[Tensor, "n dx"], generator: torch.Generator | None = None) -> Float[Tensor, "n dx"]:
        """Turn numbers drawn uniformly from [0, 1] into allowed designs, of which all are equally likely."""
        low, high = self._bounds(unit)
        x = low + unit * (high - low)
        for i, values in self.levels.items():
            x[:, i] = x.new_tensor(values)[(unit[:, i] * len(values)).long().clamp_max(len(values) - 1)]
        for columns, total in self.mixtures:
            x[:, columns] = _sample_sum(len(x), low[columns], high[columns], total, generator).to(x)
        return self.snap(x)

    def moved(
        self, x: Float[Tensor, "n dx"], step: Float[Tensor, "n dx"], moved: Float[Tensor, "n dx"]
    ) -> Float[Tensor, "n dx"]:
        """Make a proposal of a Metropolis chain keep the constraints: discrete columns stay, sums are kept, see `DesignSpace`.

        A mixture that a step would move over a bound stays where it is, so that a step is as likely as its reverse.
        """
        low, high = self._bounds(x)
        moved = torch.where(self.free(), moved, x)
        for columns, _ in self.mixtures:
            change = (step * (high - low))[:, columns]
            other = x[:, columns] + change - change.mean(dim=1, keepdim=True)
            inside = ((other >= low[columns]) & (other <= high[columns])).all(dim=1, keepdim=True)
            moved[:, columns] = torch.where(inside, other, x[:, columns])
        return moved

    def checked(self, x: Float[Tensor, "n dx"], ids: Int[Tensor, " n"], source: str) -> Float[Tensor, "n dx"]:
        """Return the designs of a table without its rounding, which may spoil the sums of mixtures.

        Raises:
            DatasetError: naming source, columns and first bad row, for a wrong sum, or a value that is not allowed.
        """
        for columns, total in self.mixtures:
            sums, names = x[:, columns].double().sum(dim=1), ", ".join(self.parameters[i].name for i in columns)
            if (wrong := (sums - total).abs() > SUM_ROUNDING * abs(total)).any():
                row = int(wrong.nonzero()[0, 0])
                raise DatasetError(
                    f"Expected {names} that add up to {total:g} in {source}, got {sums[row]:g} in row {int(ids[row])}: correct "
                    "the row or the mixture."
                )
        near, (low, high) = self.snap(x), self._bounds(x)
        off = (near - x).abs() > 1e-4 * (high - low)
        for i, values in self.levels.items():
            if off[:, i].any():
                row, known = int(off[:, i].nonzero()[0, 0]), ", ".join(f"{value:g}" for value in values[:20])
                raise DatasetError(
                    f"Expected {self.parameters[i].name} out of {known} in {source}, "
                    f"got {x[row, i]:g} in row {int(ids[row])}: correct the row, or the values of the parameter."
                )
        return near

    def _bounds(self, x: Tensor) -> tuple[Float[Tensor, " dx"], Float[Tensor, " dx"]]:
        return x.new_tensor([p.lower for p in self.parameters]), x.new_tensor([p.upper for p in self.parameters])

    def _two_nearest(self, x: Float[Tensor, "*n"], column: int) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        values = x.new_tensor(self.levels[column])
        above = torch.searchsorted(values, x.contiguous()).clamp(min(1, len(values) - 1), len(values) - 1)
        below = (above - 1).clamp_min(0)
        nearer = (x - values[below]).abs() <= (values[above] - x).abs()
        return torch.where(nearer, values[below], values[above]), torch.where(nearer, values[above], values[below])


def shift_to_sum(
    x: Float[Tensor, "*n m"], low: Float[Tensor, " m"], high: Float[Tensor, " m"], total: float
) -> Float[Tensor, "*n m"]:
    r"""Nearest points of the box with this sum: :math:`\min(\max(x + \lambda, l), h)`, whose sum grows with lambda.

    Example:
        >>> shift_to_sum(torch.tensor([0.5, 0.5, 0.3]), torch.zeros(3), torch.ones(3), 1.0)
        tensor([0.4000, 0.4000, 0.2000])
    """
    left, right = (low - x).amin(dim=-1, keepdim=True), (high - x).amax(dim=-1, keepdim=True)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (left + right)
        short = (x + middle).clamp(low, high).sum(dim=-1, keepdim=True) < total
        left, right = torch.where(short, middle, left), torch.where(short, right, middle)
    return (x + right).clamp(low, high)


def _sample_sum(
    count: int, low: Float[Tensor, " m"], high: Float[Tensor, " m"], total: float, generator: torch.Generator | None
) -> Float[Tensor, "n m"]:
    """Draw uniformly from the part of a box where the sum is the total: from a simplex around it, by rejection.

    The simplex is the one below the total from the lower bounds, or above it from the upper ones, whichever is smaller. Where
    it is a poor fit, what is missing after many rounds is shifted into the bounds.
    """
    below, above = total - float(low.sum()), float(high.sum()) - total
    found, kept = 0, []
    for _ in range(_MOST_ROUNDS):
        share = -torch.log1p(-torch.rand(count, len(low), generator=generator))
        share = share / share.sum(dim=1, keepdim=True)
        points = low + below * share if below < above else high - above * share
        inside = points[((points >= low) & (points <= high)).all(dim=1)]
        kept.append(inside)
        found += len(inside)
        if found >= count:
            return torch.cat(kept)[:count]
    return torch.cat([*kept, shift_to_sum(points, low, high, total)])[:count]
