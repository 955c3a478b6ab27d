"""Band energies at k-points: labels that a data set may carry beside the property, and what a gap is made of."""

from __future__ import annotations

__all__ = ["BandLabels", "band_gap", "edge_weights", "relative_energies"]

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from matdesinne.errors import DatasetError

_EDGE_WIDTH = 0.3
"""eV; energies farther than this from the band edge matter little for the gap."""
_EDGE_BASE = 0.05
"""Weight of energies far from the edge."""
_METAL_WEIGHT, _METAL_GAP, _METAL_WIDTH = 0.3, -0.35, 0.08
"""Designs with a gap below -0.35 eV weigh 0.3: they need not be told apart. Width of the change in eV."""


class BandLabels(NamedTuple):
    """The band edges on one grid of k-points.

    Args:
        energies: highest valence (0) and lowest conduction band (1) in eV, shape [n, 2, k]; NaN in rows without them.
        kpoints: fractional coordinates in the plane, shape [k, 2]; k and -k are the same point.
        name: of the gap on this grid.
    """

    energies: Float[Tensor, "n 2 k"]
    kpoints: Float[Tensor, "k 2"]
    name: str = "band_gap"

    def take(self, rows: Int[Tensor, " m"]) -> BandLabels:
        """Keep some rows, in the given order."""
        return self._replace(energies=self.energies[rows])

    def joined(self, other: BandLabels) -> BandLabels:
        """These rows and those of another table on the same grid.

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
        """For each k-point, the row of its image under an integer matrix.

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
            raise DatasetError("Expected k-points that the symmetry maps onto each other, got a lone one: drop the symmetry.")
        return row


def band_gap(energies: Float[Tensor, "... 2 k"]) -> Float[Tensor, "... 1"]:
    """Lowest conduction energy minus highest valence energy over all k-points, in eV; negative where the bands overlap."""
    return (energies[..., 1, :].amin(dim=-1) - energies[..., 0, :].amax(dim=-1)).unsqueeze(-1)


def relative_energies(energies: Float[Tensor, "... 2 k"]) -> Float[Tensor, "... 2 k"]:
    """Energies relative to the mean valence energy of their design: the zero of a calculation means nothing."""
    return energies - energies[..., :1, :].mean(dim=-1, keepdim=True)


def edge_weights(energies: Float[Tensor, "n 2 k"]) -> Float[Tensor, "n 2 k"]:
    """More for energies near the band edges and for designs that are not deep metals; the mean of a design's edges is 1."""
    valence, conduction = energies.unbind(dim=1)
    above = (valence - valence.amax(dim=1, keepdim=True)) / _EDGE_WIDTH
    below = (conduction.amin(dim=1, keepdim=True) - conduction) / _EDGE_WIDTH
    weight = torch.stack([above, below], dim=1).exp() + _EDGE_BASE
    weight = weight / weight.mean(dim=(1, 2), keepdim=True)
    share = torch.sigmoid((band_gap(energies) - _METAL_GAP) / _METAL_WIDTH).unsqueeze(2)
    return weight * (_METAL_WEIGHT + (1 - _METAL_WEIGHT) * share)
