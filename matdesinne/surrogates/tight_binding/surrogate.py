"""Ensemble of learnt tight-binding Hamiltonians; the gap is derived from their bands."""

from __future__ import annotations

__all__ = ["TightBindingSurrogate"]

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matdesinne.bands import BandLabels, band_gap, check_one_gap, relative_energies
from matdesinne.errors import ConfigError
from matdesinne.network import Batch, check_at_least
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.surrogates.base import Surrogate, spread_of
from matdesinne.surrogates.tight_binding.slater_koster import SlaterKoster
from matdesinne.targets import Property

_CHUNK_ROWS, _GPU_CHUNK_ROWS = 1 << 8, 1 << 12
"""Rows whose Hamiltonians at all k-points are in memory at once: they fit a core's cache, or fill a GPU."""


class TightBindingSurrogate(Surrogate):
    r"""Band edges of learnt Hamiltonians, :math:`E_g = \min_k E_c(k) - \max_k E_v(k)`.

    The Hamiltonian, see `SlaterKoster`, knows the symmetries of the layer and takes any k-point, so it learns from every grid
    that the data carry; the gap is that on the first, the property's own. The mean prediction is the gap of the ensemble's mean
    energies.

    Args:
        space: designs with the six lattice parameters, and no more than an electric field beside them.
        properties: one property, the gap.
    """

    kpoints: Tensor

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        prototype: Prototype | None = None,
        *,
        members: int = 1,
        hidden: int = 48,
    ) -> None:
        # the Hamiltonian has its own features of the cell
        super().__init__(space, properties)
        check_at_least(1, members=members, hidden=hidden)
        check_one_gap([prop.name for prop in self.properties], "tight_binding")
        if prototype is None:
            raise ConfigError("Expected the atoms of a monolayer MX2 for surrogate=tight_binding, got none: use surrogate=mlp.")
        self.prototype = prototype
        self.members, self.hidden = members, hidden
        self.hamiltonians = nn.ModuleList(SlaterKoster(space, prototype, hidden) for _ in range(members))
        self.register_buffer("kpoints", torch.empty(0, 2))

    def fit_scales(self, batch: Batch) -> None:
        """Learn the scales of gaps and invariants, and the grid of k-points on which the gap is taken.

        Raises:
            ConfigError: if the data carry no band energies.
        """
        super().fit_scales(batch)
        if not batch.bands:
            raise ConfigError("Expected band energies for surrogate=tight_binding, got none: use surrogate=mlp.")
        self.kpoints = batch.bands[0].kpoints.to(self.kpoints, copy=True)
        for member in self._members():
            member.fit_scales(batch.x)

    def on_grid(self, labels: BandLabels) -> TightBindingSurrogate:
        """The same Hamiltonians, with the gap taken on another grid of k-points, and named after it."""
        prop = replace(self.properties[0], name=labels.name)
        other = TightBindingSurrogate(self.space, [prop], self.prototype, members=self.members, hidden=self.hidden)
        other.load_state_dict(self.state_dict())
        other.kpoints = labels.kpoints.to(self.kpoints, copy=True)
        return other.eval()

    def energies(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "m n 2 k"]:
        """Valence (0) and conduction (1) energies in eV, relative to the mean valence energy, for each member.

        Raises:
            ConfigError: before `fit_scales`.
        """
        if len(self.kpoints) == 0:
            raise ConfigError("Expected k-points to take energies on, got none: train the surrogate, or call fit_scales first.")
        parts = [relative_energies(self.energies_at(rows, self.kpoints)) for rows in x.split(self.chunk_rows)]
        return torch.cat(parts, dim=1)

    @property
    def chunk_rows(self) -> int:
        """Number of rows whose matrices are held at once."""
        return _CHUNK_ROWS if self.device.type == "cpu" else _GPU_CHUNK_ROWS

    def _members(self) -> list[SlaterKoster]:
        return [member for member in self.hamiltonians if isinstance(member, SlaterKoster)]

    def energies_at(self, x: Float[Tensor, "n dx"], kpoints: Float[Tensor, "*n k 2"]) -> Float[Tensor, "m n 2 k"]:
        """Energies in eV from a common zero, for each member, at fractional k-points that all designs share or each has."""
        surroundings = self._members()[0].surroundings(x)
        return torch.stack([member.energies(surroundings, kpoints) for member in self._members()])

    def _mean_and_spread(self, x: Float[Tensor, "n dx"]) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
        """Gap of the mean energies and standard deviation of the members' gaps, in eV."""
        energies = self.energies(x)
        return band_gap(energies.mean(dim=0)), spread_of(band_gap(energies))

    def member_predictions(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "m n 1"]:
        """Gap of each member in eV."""
        return band_gap(self.energies(self.scale.inverse(features)))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: object) -> None:
        # the grid's size is known only after training
        saved = state_dict.get(f"{prefix}kpoints")
        if saved is not None and saved.ndim == 2 and saved.shape[1] == 2:
            self.kpoints = self.kpoints.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
