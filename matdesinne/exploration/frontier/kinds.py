"""Kinds of strain of a layer by name, and the designs of the simple ones."""

from __future__ import annotations

__all__ = ["SimpleStrain", "simple_strains", "strain_kinds"]

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.space import DesignSpace
from matdesinne.strain import LayerStrain

_NONE = 1e-3
"""Largest strain that counts as none."""
_SMALL = 0.1
"""A part of the strain smaller than this share of the other one counts as none, too."""
_NEAR = 5.0
"""Degrees from a direction up to which a strain runs along it."""
_DENSE = 401
"""Designs of a simple strain over the range that the box may hold."""
_LARGEST = 0.5


class SimpleStrain(NamedTuple):
    """Designs with one kind of strain, by its size; the other parameters have their references."""

    name: str
    strain: Float[Tensor, " n"]
    designs: Float[Tensor, "n dx"]


def strain_kinds(layer: LayerStrain, x: Float[Tensor, "n dx"]) -> list[str]:
    """Name the strain of each design: biaxial, uniaxial along a direction, shear, or both parts with their sizes.

    A part that is smaller than a tenth of the other one is left out. Uniaxial strain leaves the direction across as it is.

    Example:
        >>> layer = LayerStrain((0, 1, 2), (3.16, 3.16, 120.0))
        >>> strain_kinds(layer, torch.tensor([[3.16, 3.16, 120.0], [3.22, 3.22, 120.0], [3.12, 3.12, 120.0]]))
        ['unstrained', 'biaxial tension', 'biaxial compression']
    """
    strains = layer(x)
    names = ("strain_1", "strain_2", "strain_angle", "strain_biaxial", "strain_shear")
    rows = zip(*(strains[name].tolist() for name in names), strict=True)
    return [_kind(layer, *row) for row in rows]


def _kind(layer: LayerStrain, first: float, second: float, angle: float, biaxial: float, shear: float) -> str:
    if max(abs(first), abs(second)) <= _NONE:
        return "unstrained"
    if shear <= max(_SMALL * abs(biaxial), _NONE):
        return f"biaxial {_sign(biaxial)}"
    if abs(biaxial) <= max(_SMALL * shear, _NONE):
        return f"shear, longest {_direction(layer, angle)}"
    large, small, along = (first, second, angle) if abs(first) > abs(second) else (second, first, angle + 90)
    if abs(small) <= max(_SMALL * abs(large), _NONE):
        return f"uniaxial {_sign(large)} {_direction(layer, along)}"
    return f"biaxial {_percent(biaxial)} and shear {_percent(shear)}, longest {_direction(layer, angle)}"


def _sign(strain: float) -> str:
    return "tension" if strain > 0 else "compression"


def _percent(strain: float) -> str:
    return f"{100 * strain:.1f} %".replace("-", "−")


def _direction(layer: LayerStrain, angle: float) -> str:
    if "strain_zigzag" in layer.names:
        beside = (angle + 30) % 60 - 30  # from the nearest of the three zigzag directions
        if abs(beside) <= _NEAR:
            return "along zigzag"
        if 30 - abs(beside) <= _NEAR:
            return "along armchair"
        return f"{abs(beside):.0f}° from zigzag"
    return f"{(angle + 90) % 180 - 90:.0f}° from a".replace("-", "−")


def simple_strains(space: DesignSpace) -> list[SimpleStrain]:
    """Designs with biaxial strain alone, and of a hexagonal layer with uniaxial strain alone, as far as the box holds them.

    Of the two directions along which a strain may run, a uniaxial strain leaves the other one as it is.
    """
    layer = space.layer
    if layer is None or not space.bounded or space.constraints:
        return []
    directions = {"biaxial": (1.0, 1.0)}
    if "strain_zigzag" in layer.names:
        directions |= {"uniaxial, zigzag": (1.0, 0.0), "uniaxial, armchair": (0.0, 1.0)}
    size = torch.linspace(-_LARGEST, _LARGEST, _DENSE * math.ceil(2 * _LARGEST / 0.2), dtype=torch.float64)
    found = []
    for name, (zigzag, armchair) in directions.items():
        stretch = torch.stack([1 + zigzag * size, 1 + armchair * size, torch.zeros_like(size)])
        designs = space.reference.double().repeat(len(size), 1)
        designs[:, list(layer.columns)] = layer.cells(stretch)
        inside = space.contains(designs)
        found.append(SimpleStrain(name, size[inside], designs[inside].float()))
    return [strain for strain in found if len(strain.strain) > 1]
