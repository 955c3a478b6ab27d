"""Ensemble on band energies; the gap is derived from them."""

from __future__ import annotations

__all__ = ["BandSurrogate"]

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.learning import Batch
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.ensemble import EnsemblePerceptron
from matdesinne.targets import Property
from matdesinne.transforms import Standardizer


class BandSurrogate(Surrogate):
    r"""Band edges at fixed k-points, :math:`E_g = \min_k E_c(k) - \max_k E_v(k)`.

    The extremum jumps between k-points, so the gap has kinks in the design that a network on the gap learns slowly; the
    energies at fixed fractional k-points are smooth. Energies are learnt relative to the mean valence energy of their design.
    The mean prediction is the gap of the ensemble's mean energies: the mean of the members' gaps would be biased low.

    Args:
        space: the designs.
        properties: one property, the gap.
        kpoints: number of k-points that the data carry.
        members: size of the ensemble.
        hidden: width of each hidden layer.
        depth: number of hidden layers.
        optimization: fields of `matdesinne.learning.Optimization`.
    """

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        kpoints: int = 41,
        members: int = 4,
        hidden: int = 256,
        depth: int = 3,
        optimization: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(space, properties, optimization)
        self.save_hyperparameters(ignore=["space", "properties"], logger=False)
        if len(self.properties) != 1:
            raise ConfigError(
                f"Expected one property (a gap) for surrogate=bands, got {len(self.properties)}: use surrogate=mlp."
            )
        self.kpoints = kpoints
        self.energy_scale = Standardizer(2 * kpoints)
        self.network = EnsemblePerceptron(members, space.dimension, 2 * kpoints, hidden, depth)

    def fit_scales(self, batch: Batch) -> None:
        """Learn the scales of designs, gaps and energies.

        Raises:
            ConfigError: if the data carry no band energies at as many k-points.
        """
        super().fit_scales(batch)
        if batch.bands is None or batch.bands.shape[2] != self.kpoints:
            found = "none" if batch.bands is None else f"{batch.bands.shape[2]} k-points"
            raise ConfigError(
                f"Expected band energies at {self.kpoints} k-points for surrogate=bands, got {found}: use surrogate=mlp."
            )
        self.energy_scale.fit(_relative(batch.bands).flatten(start_dim=1))

    def energies(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "m n 2 k"]:
        """Valence (0) and conduction (1) energies in eV, relative to the mean valence energy, for each member.

        Args:
            x: designs in physical units, shape [n, dx].
        """
        return self._energies(self.scale(x))

    def _energies(self, u: Float[Tensor, "n dx"]) -> Float[Tensor, "m n 2 k"]:
        return self.energy_scale.inverse(self.network(u)).unflatten(2, (2, self.kpoints))

    def predict(self, x: Float[Tensor, "n dx"]) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
        """Gap of the mean energies and standard deviation of the members' gaps, in eV."""
        energies = self.energies(x)
        gaps = _gap(energies)
        spread = gaps.std(dim=0) if gaps.shape[0] > 1 else torch.zeros_like(gaps[0])
        return _gap(energies.mean(dim=0)), spread

    def _members(self, u: Float[Tensor, "n dx"]) -> Float[Tensor, "m n 1"]:
        return _gap(self._energies(u))

    def _terms(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.bands is not None  # fit_scales has checked
        energies = self.energies(batch.x)
        wanted = _relative(batch.bands)
        error = (energies - wanted).flatten(start_dim=2) / self.energy_scale.std
        gap_error = (_gap(energies.detach().mean(dim=0)) - batch.y).abs()
        return {"loss": error.square().mean(), "mae": gap_error.mean()}


def _gap(energies: Float[Tensor, "... 2 k"]) -> Float[Tensor, "... 1"]:
    return (energies[..., 1, :].amin(dim=-1) - energies[..., 0, :].amax(dim=-1)).unsqueeze(-1)


def _relative(energies: Float[Tensor, "n 2 k"]) -> Float[Tensor, "n 2 k"]:
    return energies - energies[:, :1].mean(dim=2, keepdim=True)
