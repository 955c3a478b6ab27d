"""Symmetries of a design space: operations on designs that leave a property unchanged, and the group that they generate."""

from __future__ import annotations

__all__ = ["GroupElement", "Symmetry", "generate_group"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError

_LARGEST_GROUP = 200


@dataclass(frozen=True)
class Symmetry:
    """An operation x -> A x + b on designs that leaves the property unchanged.

    Args:
        substitutions: for each parameter that changes, ``[factor, source, offset]``: new value = factor * source + offset.
        reciprocal: integer 2 x 2 matrix that maps fractional k-points under the operation.
    """

    substitutions: Mapping[str, Sequence[float | str]]
    reciprocal: Sequence[Sequence[int]] = ((1, 0), (0, 1))

    def __post_init__(self) -> None:
        """Check the rules and turn lists into tuples, so that equal operations compare equal."""
        for name, rule in self.substitutions.items():
            if len(rule) != 3 or not isinstance(rule[0], int | float) or not isinstance(rule[2], int | float):
                raise ConfigError(
                    f"Expected [factor, source, offset] for {name!r} in a symmetry, got {list(rule)}: e.g. [-1, alpha, 180]."
                )
        object.__setattr__(self, "substitutions", {name: tuple(rule) for name, rule in self.substitutions.items()})
        object.__setattr__(self, "reciprocal", tuple(tuple(row) for row in self.reciprocal))


@dataclass(frozen=True)
class GroupElement:
    """One element of the symmetry group in matrix form: x -> x A^T + b, k -> k M^T."""

    matrix: Float[Tensor, "dx dx"]
    offset: Float[Tensor, " dx"]
    reciprocal: Float[Tensor, "2 2"]

    def __call__(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dx"]:
        """Apply the operation to designs in physical units."""
        return x @ self.matrix.to(x).T + self.offset.to(x)


def generate_group(names: Sequence[str], symmetries: Sequence[Symmetry]) -> tuple[GroupElement, ...]:
    """Compute all operations over the named parameters that some symmetries generate, the identity first.

    Raises:
        ConfigError: if the group has more than 200 elements.
    """
    identity = GroupElement(torch.eye(len(names)), torch.zeros(len(names)), torch.eye(2))
    elements, generators = [identity], [_element(names, symmetry) for symmetry in symmetries]
    for element in elements:  # grows while it is read
        for generator in generators:
            offset = generator.matrix @ element.offset + generator.offset
            matrix, reciprocal = generator.matrix @ element.matrix, generator.reciprocal @ element.reciprocal
            product = GroupElement(matrix, offset, reciprocal)
            if not any(_same(product, known) for known in elements):
                elements.append(product)
        if len(elements) > _LARGEST_GROUP:
            raise ConfigError(f"Expected symmetries of a finite group, got over {_LARGEST_GROUP} operations: correct them.")
    return tuple(elements)


def _element(names: Sequence[str], symmetry: Symmetry) -> GroupElement:
    matrix, offset = torch.eye(len(names)), torch.zeros(len(names))
    for name, (factor, source, shift) in symmetry.substitutions.items():
        row = names.index(name)
        matrix[row] = 0.0
        matrix[row, names.index(str(source))] = float(factor)
        offset[row] = float(shift)
    return GroupElement(matrix, offset, torch.tensor(symmetry.reciprocal, dtype=torch.float32))


def _same(left: GroupElement, right: GroupElement) -> bool:
    return torch.allclose(left.matrix, right.matrix) and torch.allclose(left.offset, right.offset, atol=1e-4)
