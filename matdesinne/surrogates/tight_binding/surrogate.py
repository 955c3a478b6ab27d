"""Ensemble of learnt tight-binding Hamiltonians; the gap is derived from their bands."""

from __future__ import annotations

__all__ = ["TightBindingSurrogate"]

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from matdesinne.bands import BandLabels, band_gap, edge_weights, relative_energies
from matdesinne.errors import ConfigError
from matdesinne.network import Batch
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.surrogates.base import Surrogate, huber_loss, spread_of
from matdesinne.surrogates.tight_binding.slater_koster import SlaterKoster
from matdesinne.targets import Property

_CHUNK_ROWS = 1 << 8
"""Rows whose Hamiltonians at all k-points are in memory at once."""


class _Samples(NamedTuple):
    """Rows with energies at some k-points each.

    Args:
        x: designs, shape [r, dx].
        kpoints: shape [r, k, 2].
        wanted: energies in eV, shape [r, 2, k].
        shares: of each energy in its row's loss, shape [r, 2, k].
        weights: of each row, shape [r].
    """

    x: Float[Tensor, "r dx"]
    kpoints: Float[Tensor, "r k 2"]
    wanted: Float[Tensor, "r 2 k"]
    shares: Float[Tensor, "r 2 k"]
    weights: Float[Tensor, " r"]


class TightBindingSurrogate(Surrogate):
    r"""Band edges of learnt Hamiltonians, :math:`E_g = \min_k E_c(k) - \max_k E_v(k)`.

    The Hamiltonian, see `SlaterKoster`, knows the symmetries of the layer and takes any k-point, so it learns from every grid
    that the data carry; the gap is that on the first, the property's own. A training step sees a few k-points of each design,
    drawn with a probability that grows towards the band edges; energies are compared up to a shift of each design. The mean
    prediction is the gap of the ensemble's mean energies.

    Args:
        space: designs with the six lattice parameters, and no more than an electric field beside them.
        properties: one property, the gap.
        prototype: the atoms of a design: one metal and two chalcogens.
        members: size of the ensemble.
        hidden: width of each hidden layer.
        huber: error at which the loss goes from quadratic to linear, in eV.
        kpoints_per_step: k-points of each design in a training step.
        optimization: fields of `matdesinne.network.Optimization`.
    """

    kpoints: Tensor

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        prototype: Prototype | None = None,
        *,
        members: int = 2,
        hidden: int = 32,
        huber: float = 0.03,
        kpoints_per_step: int = 8,
        optimization: Mapping[str, float] | None = None,
    ) -> None:
        # the Hamiltonian has its own features of the cell
        super().__init__(space, properties, None, optimization)
        self.save_hyperparameters(ignore=["space", "properties", "prototype"], logger=False)
        if len(self.properties) != 1:
            raise ConfigError(
                f"Expected one property (a gap) for surrogate=tight_binding, got {len(self.properties)}: use surrogate=mlp."
            )
        if prototype is None:
            raise ConfigError("Expected the atoms of a monolayer MX2 for surrogate=tight_binding, got none: use surrogate=mlp.")
        if not (huber > 0 and members >= 1 and kpoints_per_step >= 1):
            raise ConfigError(
                f"Expected huber > 0, members >= 1 and kpoints_per_step >= 1, got {huber}, {members} and {kpoints_per_step}: "
                "correct them."
            )
        self.prototype = prototype
        self.huber, self.kpoints_per_step = huber, kpoints_per_step
        self.members = nn.ModuleList(SlaterKoster(space, prototype, hidden) for _ in range(members))
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
        for member in self._hamiltonians():
            member.fit_scales(batch.x)

    def on_grid(self, labels: BandLabels) -> TightBindingSurrogate:
        """The same Hamiltonians, with the gap taken on another grid of k-points, and named after it."""
        prop = replace(self.properties[0], name=labels.name)
        other = TightBindingSurrogate(self.space, [prop], self.prototype, **self.hparams)  # type: ignore[arg-type]
        other.kpoints = self.kpoints.new_empty(self.kpoints.shape)
        other.load_state_dict(self.state_dict())
        other.kpoints = labels.kpoints.to(self.kpoints, copy=True)
        return other.eval()

    def energies(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "m n 2 k"]:
        """Valence (0) and conduction (1) energies in eV, relative to the mean valence energy, for each member.

        Args:
            x: designs in physical units, shape [n, dx].

        Raises:
            ConfigError: before `fit_scales`.
        """
        if len(self.kpoints) == 0:
            raise ConfigError("Expected k-points to take energies on, got none: train the surrogate, or call fit_scales first.")
        parts = [relative_energies(self._energies(rows, self.kpoints)) for rows in x.split(_CHUNK_ROWS)]
        return torch.cat(parts, dim=1)

    @property
    def chunk_rows(self) -> int:
        """Number of rows whose matrices are held at once."""
        return _CHUNK_ROWS

    def _hamiltonians(self) -> list[SlaterKoster]:
        return [member for member in self.members if isinstance(member, SlaterKoster)]

    def _energies(self, x: Float[Tensor, "n dx"], kpoints: Float[Tensor, "*n k 2"]) -> Float[Tensor, "m n 2 k"]:
        members = self._hamiltonians()
        around = members[0].surroundings(x)
        return torch.stack([member.energies(around, kpoints) for member in members])

    def _mean_and_spread(self, x: Float[Tensor, "n dx"]) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
        """Gap of the mean energies and standard deviation of the members' gaps, in eV."""
        energies = self.energies(x)
        return band_gap(energies.mean(dim=0)), spread_of(band_gap(energies))

    def _members(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "m n 1"]:
        return band_gap(self.energies(self.scale.inverse(features)))

    def weight(self, batch: Batch) -> int:
        """Rows with energies: in training of every grid, in validation of the property's."""
        return sum(len(_complete_rows(labels)) for labels in (batch.bands if self.training else batch.bands[:1]))

    def _terms(self, batch: Batch) -> dict[str, Tensor]:
        if not self.training:
            return self._validation_terms(batch)
        complete = [(labels, _complete_rows(labels)) for labels in batch.bands]
        grids = [(labels, rows) for labels, rows in complete if len(rows) > 0]
        if not grids:
            return {"loss": self._nothing()}
        count = min(self.kpoints_per_step, *(len(labels.kpoints) for labels, _ in grids))
        parts = [_drawn(batch.x, labels, rows, count) for labels, rows in grids]
        samples = _Samples(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        return {"loss": self._loss(samples, self._energies(samples.x, samples.kpoints))}

    def _validation_terms(self, batch: Batch) -> dict[str, Tensor]:
        """All k-points of the property's own grid, on which the gap is taken, too."""
        known, rows = batch.y[:, 0].isfinite(), _complete_rows(batch.bands[0])
        samples = _whole(batch.x, batch.bands[0], rows)
        energies = self._energies(batch.x, self.kpoints)
        loss = self._loss(samples, energies[:, rows]) if len(rows) > 0 else self._nothing()
        error = (band_gap(relative_energies(energies.detach()).mean(dim=0)) - batch.y)[known].abs()
        return {"loss": loss, "mae": error.mean() if known.any() else error.sum()}

    def _loss(self, samples: _Samples, energies: Float[Tensor, "m r 2 k"]) -> Float[Tensor, ""]:
        """Huber loss up to a shift of each row, the mean over rows and members."""
        shares = samples.shares / samples.shares.sum(dim=(1, 2), keepdim=True)
        difference = energies - samples.wanted
        difference = difference - (shares * difference).sum(dim=(2, 3), keepdim=True)
        return ((shares * huber_loss(difference, self.huber)).sum(dim=(2, 3)) * samples.weights).mean()

    def _nothing(self) -> Float[Tensor, ""]:
        """Zero, with a gradient for every parameter."""
        return torch.stack([0 * parameter.sum() for parameter in self.parameters()]).sum()

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: object) -> None:
        # the grid's size is known only after training
        saved = state_dict.get(f"{prefix}kpoints")
        if saved is not None and saved.ndim == 2 and saved.shape[1] == 2:
            self.kpoints = self.kpoints.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def _complete_rows(labels: BandLabels) -> Int[Tensor, " r"]:
    return labels.energies.flatten(start_dim=1).isfinite().all(dim=1).nonzero()[:, 0]


def _whole(x: Float[Tensor, "n dx"], labels: BandLabels, rows: Int[Tensor, " r"]) -> _Samples:
    """All k-points of some rows."""
    wanted = relative_energies(labels.energies[rows])
    weights = edge_weights(wanted)
    return _Samples(x[rows], labels.kpoints.expand(len(rows), -1, -1), wanted, weights, weights.mean(dim=(1, 2)))


def _drawn(x: Float[Tensor, "n dx"], labels: BandLabels, rows: Int[Tensor, " r"], count: int) -> _Samples:
    """Some k-points of some rows; a point's share is divided by the probability with which it was drawn."""
    whole = _whole(x, labels, rows)
    if count == len(labels.kpoints):
        return whole
    importance = whole.shares.sum(dim=1)
    chosen = torch.multinomial(importance, count)
    both = chosen.unsqueeze(1).expand(-1, 2, -1)
    shares = whole.shares.gather(2, both) / importance.gather(1, chosen).unsqueeze(1)
    return _Samples(whole.x, labels.kpoints[chosen], whole.wanted.gather(2, both), shares, whole.weights)
