"""Ensemble on band energies; the gap is derived from them."""

from __future__ import annotations

__all__ = ["BandSurrogate"]

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.bands import band_gap, check_one_gap, own_grids, relative_energies
from matdesinne.errors import ConfigError
from matdesinne.models.networks import EnsemblePerceptron
from matdesinne.network import Batch, check_at_least
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.surrogates.base import Linearization, Surrogate, spread_of
from matdesinne.targets import Property
from matdesinne.transforms import Standardizer


class BandSurrogate(Surrogate):
    r"""Band edges at fixed k-points, :math:`E_g = \min_k E_c(k) - \max_k E_v(k)`.

    The extremum jumps between k-points, so the gap has kinks in the design that a network on the gap learns slowly; the
    energies at fixed fractional k-points are smoother. Where two bands cross at one k-point, an edge has a kink too: each
    edge is an eigenvalue of a real 2 x 2 matrix, :math:`E = c \pm \sqrt{d^2 + o^2}` (+ for valence, - for conduction).
    Energies are learnt relative to the mean valence energy of their design, those near the edges with more weight. The mean
    prediction is the gap of the ensemble's mean energies: the mean of the members' gaps would be biased low.

    Args:
        kpoints: number of k-points that the data carry.
    """

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        prototype: Prototype | None = None,
        *,
        kpoints: int,
        members: int = 4,
        hidden: int = 256,
        depth: int = 3,
    ) -> None:
        super().__init__(space, properties, prototype)
        check_at_least(1, kpoints=kpoints, members=members, hidden=hidden)
        check_at_least(0, depth=depth)
        check_one_gap([prop.name for prop in self.properties], "bands")
        self.kpoints, self.members, self.hidden, self.depth = kpoints, members, hidden, depth
        self.energy_scale = Standardizer(2 * kpoints)
        self.network = EnsemblePerceptron(members, self.features.size, 3 * 2 * kpoints, hidden, depth)
        with torch.no_grad():
            _, difference, coupling = self.network.biases[-1].unflatten(2, (3, 2 * kpoints)).unbind(dim=2)
            difference.fill_(1.0)
            coupling.fill_(0.3)

    def fit_scales(self, batch: Batch) -> None:
        """Learn the scales of designs, gaps and energies.

        Raises:
            ConfigError: if a row carries no band energies at as many k-points, or those of another number of teachers.
        """
        super().fit_scales(batch)
        if not batch.bands or len(batch.bands[0].kpoints) != self.kpoints:
            found = f"{len(batch.bands[0].kpoints)} k-points" if batch.bands else "none"
            raise ConfigError(
                f"Expected band energies at {self.kpoints} k-points for surrogate=bands, got {found}: use surrogate=mlp."
            )
        lacking = int(batch.bands[0].energies.isnan().flatten(start_dim=1).any(dim=1).sum())
        if lacking:
            raise ConfigError(
                f"Expected {batch.bands[0].name} with band energies in every row for surrogate=bands, got {lacking} of "
                f"{len(batch.x)} rows without: use surrogate=tight_binding or distilled/bands, or label with DFT on this grid."
            )
        teachers = len(own_grids(batch.bands))
        if teachers not in (1, self.members):
            raise ConfigError(
                f"Expected as many members as the teacher has, {teachers}, got {self.members}: correct network.members, or "
                "distillation.teacher.network.members."
            )
        self.energy_scale.fit(relative_energies(batch.bands[0].energies).flatten(start_dim=1))

    def energies(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "m n 2 k"]:
        """Valence (0) and conduction (1) energies in eV, relative to the mean valence energy, for each member."""
        return relative_energies(self._levels(self.network(self.features(x))))

    def _levels(self, outputs: Float[Tensor, "m n o"]) -> Float[Tensor, "m n 2 k"]:
        """Energies in eV from a common zero of each design and member, which means nothing."""
        mean, std = (values.view(2, -1) for values in (self.energy_scale.mean, self.energy_scale.std))
        return _eigenvalues(outputs.unflatten(2, (3, 2, self.kpoints)), mean, std)

    def _mean_and_spread(self, x: Float[Tensor, "n dx"]) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
        """Gap of the mean energies and standard deviation of the members' gaps, in eV."""
        energies = self._levels(self.network(self.features(x)))
        return band_gap(energies.mean(dim=0)), spread_of(band_gap(energies))

    def _linearize(self, x: Float[Tensor, "n dx"]) -> Linearization:
        """With the two k-points that carry the edges alone: the others have no gradient."""
        x, features = self._traced_features(x)
        outputs, arguments = self.network.evaluate(features)
        with torch.no_grad():
            energies = self._levels(outputs)
            spread, (valence, conduction) = spread_of(band_gap(energies)), energies.mean(dim=0).unbind(dim=1)
        size = self.kpoints
        edges = torch.stack([valence.argmax(dim=1), size + conduction.argmin(dim=1)], dim=1)
        columns = torch.cat([edges + 2 * size * entry for entry in range(3)], dim=1)
        with torch.enable_grad():
            chosen = outputs.gather(2, columns.expand(len(outputs), -1, -1)).requires_grad_()
            scale = (values[edges].unsqueeze(2) for values in (self.energy_scale.mean, self.energy_scale.std))
            gap = band_gap(_eigenvalues(chosen.unflatten(2, (3, 2, 1)), *scale).mean(dim=0))
            (factors,) = torch.autograd.grad(gap.sum(), chosen)
            slope = self.network.pull_back(arguments, columns.expand_as(factors), factors)
            (jacobian,) = torch.autograd.grad((features * slope).sum(), x)
        return Linearization(gap.detach(), self._calibrated(spread), jacobian.unsqueeze(1))

    def member_predictions(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "m n 1"]:
        """Gap of each member in eV."""
        return band_gap(self._levels(self.network(features)))


def _eigenvalues(
    entries: Float[Tensor, "m n 3 2 k"], mean: Float[Tensor, "... 2 k"], std: Float[Tensor, "... 2 k"]
) -> Float[Tensor, "m n 2 k"]:
    """The upper eigenvalue (valence) and the lower one (conduction) of real 2 x 2 matrices, scaled."""
    centre, difference, coupling = entries.unbind(dim=2)
    split = (difference.square() + coupling.square() + 1e-6).sqrt()
    upper, lower = centre[:, :, :1] + split[:, :, :1], centre[:, :, 1:] - split[:, :, 1:]
    return torch.cat([upper, lower], dim=2) * std + mean
