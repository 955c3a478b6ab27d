"""What a descent sees of designs: their cost, and the edges of rules, with slopes."""

from __future__ import annotations

__all__ = ["Objective", "RuleEdges"]

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.expressions import Formula
from matdesinne.selection import Selection, named_columns

_FAR = 1e3
"""Distance in half-widths of the box at which an edge holds no step."""


class Objective:
    """What a design costs: a property, or a formula of parameters, strains and properties, see `Formula`.

    Raises:
        ConfigError: if the text is no formula.
    """

    def __init__(self, text: str) -> None:
        self.formula = Formula(text)

    @property
    def text(self) -> str:
        """The formula."""
        return self.formula.text

    def values(self, candidates: Candidates) -> Float[Tensor, " n"]:
        """The objective of each candidate in float64; infinite where it is undefined.

        Raises:
            ConfigError: if the formula uses a name that is no column.
        """
        return self._value(candidates).detach().nan_to_num(nan=torch.inf)

    def slopes(
        self, candidates: Candidates, jacobian: Float[Tensor, "n dy dx"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n dx"]]:
        """The values, and their derivatives with respect to the designs, through the properties, too.

        Args:
            candidates: with predictions at the designs.
            jacobian: of the predictions, in physical units.
        """
        with torch.enable_grad():
            leaves = _on_graph(candidates)
            value = self._value(leaves)
            gradient = _slope(value, leaves, jacobian)
        return value.detach().nan_to_num(nan=torch.inf), gradient

    def _value(self, candidates: Candidates) -> Float[Tensor, " n"]:
        spreads = [f"{prop.name}_std" for prop in candidates.properties]  # their slopes are not known
        columns = {name: column for name, column in named_columns(candidates).items() if name not in spreads}
        return self.formula.value(columns).expand(len(candidates))


class RuleEdges(NamedTuple):
    """Distances of designs to the edges of rules, in half-widths of the box, below 0 outside, and their slopes of length 1."""

    distance: Float[Tensor, "n r"]
    slopes: Float[Tensor, "n r dx"]

    @classmethod
    def of(
        cls, rules: Selection, candidates: Candidates, jacobian: Float[Tensor, "n dy dx"], unit: Float[Tensor, " dx"]
    ) -> RuleEdges:
        """To first order; an edge without a slope is far away, so that it holds no step."""
        x = candidates.designs
        found, slopes = [x.new_zeros(len(x), 0)], [x.new_zeros(len(x), 0, x.shape[1])]
        with torch.enable_grad():
            leaves = _on_graph(candidates)
            for margin in rules.margins(leaves):
                slope = _slope(margin, leaves, jacobian) * unit
                length = slope.norm(dim=1, keepdim=True)
                distance = (margin.detach().to(x).unsqueeze(1) / length).where(length > 0, torch.inf)
                found.append(distance.nan_to_num(torch.inf).clamp(-_FAR, _FAR))
                slopes.append((slope / length.clamp_min(1e-30)).unsqueeze(1))
        return cls(torch.cat(found, dim=1), torch.cat(slopes, dim=1))

    def take(self, rows: Tensor) -> RuleEdges:
        """Keep some rows, by a mask or by their numbers."""
        return RuleEdges(self.distance[rows], self.slopes[rows])


def _on_graph(candidates: Candidates) -> Candidates:
    x, mean = (values.detach().requires_grad_() for values in (candidates.designs, candidates.mean))
    return replace(candidates, designs=x, mean=mean)


def _slope(value: Float[Tensor, " n"], leaves: Candidates, jacobian: Float[Tensor, "n dy dx"]) -> Float[Tensor, "n dx"]:
    """The derivatives of a value with respect to the designs, through the properties, too; 0 where undefined."""
    if not value.requires_grad:
        return torch.zeros_like(leaves.designs)
    inputs = (leaves.designs, leaves.mean)
    direct, through = torch.autograd.grad(value.sum(), inputs, retain_graph=True, allow_unused=True, materialize_grads=True)
    return (direct + (through.unsqueeze(1) @ jacobian).squeeze(1)).nan_to_num(0.0, 0.0, 0.0)
