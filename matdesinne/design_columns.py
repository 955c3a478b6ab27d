"""Designs and design spaces as columns of tables and plain containers."""

from __future__ import annotations

__all__ = ["category_labels", "column_names", "design_columns", "designs_of_columns", "plain_space"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.parameters import Mixture, Parameter
from matdesinne.strain import StrainBounds
from matdesinne.symmetry import Symmetry


def category_labels(parameters: Sequence[Parameter]) -> dict[str, list[str]]:
    """The labels of each category among parameters, by its name."""
    labels: dict[str, list[str]] = {}
    for parameter in parameters:
        if parameter.category:
            labels.setdefault(parameter.category, []).append(parameter.label)
    return labels


def column_names(parameters: Sequence[Parameter]) -> tuple[str, ...]:
    """Names of the columns of a table of designs, in which a category is one column."""
    return tuple(dict.fromkeys(parameter.category or parameter.name for parameter in parameters))


def design_columns(parameters: Sequence[Parameter], x: Float[Tensor, "n dx"]) -> dict[str, tuple[str, list[float] | list[str]]]:
    """Return designs as ``{name: (unit, values)}``, categories as text."""
    table: dict[str, tuple[str, list[float] | list[str]]] = {}
    for name, labels in category_labels(parameters).items():
        numbers = [i for i, parameter in enumerate(parameters) if parameter.category == name]
        table[name] = ("", [labels[i] for i in x[:, numbers].argmax(dim=1).tolist()])
    for i, parameter in enumerate(parameters):
        if not parameter.category:
            table[parameter.name] = (parameter.unit, x[:, i].tolist())
    return {name: table[name] for name in column_names(parameters)}


def designs_of_columns(
    parameters: Sequence[Parameter], table: Mapping[str, Sequence[float] | Sequence[str]]
) -> Float[Tensor, "n dx"]:
    """Read what `design_columns` gave, without the units."""
    found = ([e == p.label for e in table[p.category]] if p.category else list(table[p.name]) for p in parameters)
    return torch.stack([torch.tensor(column, dtype=torch.get_default_dtype()) for column in found], dim=-1)


def plain_space(
    parameters: Sequence[Parameter],
    symmetries: Sequence[Symmetry],
    order: Sequence[str],
    mixtures: Sequence[Mixture],
    constants: Mapping[str, float],
    strain_bounds: StrainBounds,
) -> dict[str, object]:
    """Return the arguments of a `DesignSpace` as plain containers; infinite bounds and empty fields are left out."""
    plain: dict[str, object] = {
        "parameters": [parameter.to_dict() for parameter in parameters],
        "symmetries": [asdict(symmetry) for symmetry in symmetries],
        "order": list(order),
    }
    plain |= {"mixtures": [asdict(mixture) for mixture in mixtures]} if mixtures else {}
    plain |= {"constants": dict(constants)} if constants else {}
    finite = {name: [edge if isfinite(edge) else None for edge in edges] for name, edges in strain_bounds.items()}
    return plain | ({"strain_bounds": finite} if finite else {})
