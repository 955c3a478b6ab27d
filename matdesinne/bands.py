"""Band energies at k-points, which a data set may contain beside the property, and the band gap computed from them."""

from __future__ import annotations

__all__ = [
    "BandLabels",
    "band_edges",
    "band_gap",
    "check_one_gap",
    "edge_weights",
    "gap_level",
    "own_grids",
    "relative_energies",
    "scalar_level",
]

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from matdesinne.errors import ConfigError, DatasetError

_EDGE_WIDTH = 0.3
"""Distance from the band edge in eV over which the weight of an energy decays."""
_EDGE_BASE = 0.05
"""Weight of energies far from the edge."""
_METAL_WEIGHT, _METAL_GAP, _METAL_WIDTH = 0.3, -0.35, 0.08
"""Designs with a gap below -0.35 eV get the weight 0.3, since they need not be distinguished; it changes over 0.08 eV."""


class BandLabels(NamedTuple):
    """Energies of the highest valence and the lowest conduction band on one grid of k-points.

    Args:
        energies: highest valence (0) and lowest conduction band (1) in eV, shape [n, 2, k]; NaN in rows without them.
        kpoints: fractional coordinates in the plane, shape [k, 2]; k and -k are the same point.
        name: name of the gap on this grid.
    """

    energies: Float[Tensor, "n 2 k"]
    kpoints: Float[Tensor, "k 2"]
    name: str = "band_gap"

    def take(self, rows: Int[Tensor, " m"]) -> BandLabels:
        """Return some rows, in the given order."""
        return self._replace(energies=self.energies[rows])

    def joined(self, other: BandLabels) -> BandLabels:
        """Append the rows of another table on the same grid.

        Raises:
            DatasetError: if the k-points differ.
        """
        if self.kpoints.shape != other.kpoints.shape or not torch.allclose(self.kpoints, other.kpoints, atol=1e-6):
            raise DatasetError(
                f"Expected the same {len(self.kpoints)} k-points of {self.name} in both tables, got others: "
                "label with the settings of the data set."
            )
        return self._replace(energies=torch.cat([self.energies, other.energies]))

    def permutation(self, reciprocal: Float[Tensor, "2 2"]) -> Int[Tensor, " k"]:
        """Return for each k-point the index of its image under an integer matrix.

        Raises:
            DatasetError: if an image is not among the k-points.
        """
        image = self.kpoints @ reciprocal.T
        distances = []
        for sign in (1, -1):
            difference = sign * image.unsqueeze(1) - self.kpoints.unsqueeze(0)
            distances.append((difference - difference.round()).norm(dim=-1))
        distance, row = torch.minimum(*distances).min(dim=1)
        if (distance > 1e-3).any():
            raise DatasetError(
                "Expected k-points that the symmetry maps onto each other, got one without an image: drop the symmetry."
            )
        return row


def gap_level(name: str) -> str | None:
    """The name of the band gap of the level whose gap a property is, such as ``band_gap_fine`` for ``direct_gap_fine``.

    A property that is neither a band gap nor a direct gap has none.
    """
    for kind in ("band_gap", "direct_gap"):
        if name == kind or name.startswith(f"{kind}_"):
            return f"band_gap{name.removeprefix(kind)}"
    return None


def scalar_level(level: str) -> str:
    """The level without spin-orbit coupling or hybrid functional on the grid of k-points of a level."""
    return "band_gap_fine" if "_fine" in level else "band_gap"


def check_one_gap(names: Sequence[str], surrogate: str) -> None:
    """Raise a ConfigError if a surrogate that derives one band gap from bands is to learn any other property."""
    if len(names) != 1 or gap_level(names[0]) not in (None, names[0]):
        raise ConfigError(
            f"Expected one band gap for surrogate={surrogate}, got {list(names)}: use surrogate=mlp, gp or gp_bands."
        )


def own_grids(bands: Sequence[BandLabels]) -> list[BandLabels]:
    """The labels on the property's own grid, the first: one, or one of each member of a teacher."""
    return [labels for labels in bands if labels.name == bands[0].name]


def band_edges(valence: Float[np.ndarray, " k"], conduction: Float[np.ndarray, " k"]) -> dict[str, float | int]:
    """Gaps and edges of the highest valence and the lowest conduction band over k-points, in eV."""
    return {
        "band_gap": float(conduction.min() - valence.max()),
        "direct_gap": float((conduction - valence).min()),
        "valence_maximum": float(valence.max()),
        "conduction_minimum": float(conduction.min()),
        "valence_k": int(valence.argmax()),
        "conduction_k": int(conduction.argmin()),
    }


def band_gap(energies: Float[Tensor, "... 2 k"]) -> Float[Tensor, "... 1"]:
    """Compute lowest conduction minus highest valence energy over all k-points in eV; negative for overlapping bands."""
    return (energies[..., 1, :].amin(dim=-1) - energies[..., 0, :].amax(dim=-1)).unsqueeze(-1)


def relative_energies(energies: Float[Tensor, "... 2 k"]) -> Float[Tensor, "... 2 k"]:
    """Subtract the mean valence energy of each design, since the zero of energy of a calculation is arbitrary."""
    return energies - energies[..., :1, :].mean(dim=-1, keepdim=True)


def edge_weights(energies: Float[Tensor, "n 2 k"]) -> Float[Tensor, "n 2 k"]:
    """Weight energies by distance from the band edges, with mean 1 for each design; reduce the weight of deep metals."""
    valence, conduction = energies.unbind(dim=1)
    above = (valence - valence.amax(dim=1, keepdim=True)) / _EDGE_WIDTH
    below = (conduction.amin(dim=1, keepdim=True) - conduction) / _EDGE_WIDTH
    weight = torch.stack([above, below], dim=1).exp() + _EDGE_BASE
    weight = weight / weight.mean(dim=(1, 2), keepdim=True)
    share = torch.sigmoid((band_gap(energies) - _METAL_GAP) / _METAL_WIDTH).unsqueeze(2)
    return weight * (_METAL_WEIGHT + (1 - _METAL_WEIGHT) * share)
