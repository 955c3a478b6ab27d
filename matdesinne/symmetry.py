"""Symmetries of a design space: operations on designs that leave a property unchanged, and the group that they generate."""

from __future__ import annotations

__all__ = ["GroupElement", "Symmetry", "chosen_image", "generate_group", "largest_image"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matdesinne.errors import ConfigError

_LARGEST_GROUP = 200
_EQUAL = 2e-6
"""Two values of a parameter are equal when they differ by less than this many half-widths of the box."""


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

    def check(self, names: Sequence[str]) -> None:
        """Check that all parameters of the operation are among some names.

        Raises:
            ConfigError: if one is not.
        """
        for name, (_, source, _) in self.substitutions.items():
            if name not in names or source not in names:
                raise ConfigError(f"Expected a symmetry over {list(names)}, got {name!r} from {source!r}: correct the name.")


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


def largest_image(
    x: Float[Tensor, "n dx"],
    group: Sequence[GroupElement],
    half_width: Float[Tensor, " dx"],
    contains: Callable[[Float[Tensor, "n dx"]], Bool[Tensor, " n"]],
) -> Float[Tensor, "n dx"]:
    """Choose of the images inside the bounds the one with the larger value of the first parameter that differs."""
    best, half_width = x, half_width.to(x)
    for element in group[1:]:
        image = element(x)
        ahead = (image - best) / half_width
        first = (ahead.abs() > _EQUAL).int().argmax(dim=1, keepdim=True)
        better = (ahead.gather(1, first).squeeze(1) > _EQUAL) & contains(image)
        best = torch.where(better.unsqueeze(1), image, best)
    return best


def chosen_image(
    images: Float[Tensor, "n g dx"], inside: Bool[Tensor, "n g"], level: Float[Tensor, " n"]
) -> Float[Tensor, "n dx"]:
    """Choose one of the images inside the bounds, or the first, all equally likely, by a uniform `level` in [0, 1)."""
    inside = inside.clone()
    inside[:, 0] = True
    number = (level * inside.sum(dim=1)).long().unsqueeze(1)
    chosen = (inside.cumsum(dim=1) > number).int().argmax(dim=1)
    return images[torch.arange(len(images)), chosen]


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
