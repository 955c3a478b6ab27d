"""The LightningModule of the tight-binding surrogate."""

from __future__ import annotations

__all__ = ["LightningTightBinding"]

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float, Int
from pytorch_optimizer import SOAP
from torch import Tensor

from matdesinne.bands import BandLabels, band_gap, edge_weights, relative_energies
from matdesinne.network import Batch, check_at_least
from matdesinne.surrogates.tight_binding.surrogate import TightBindingSurrogate
from matdesinne.training.module import TrainingOptions, training_options
from matdesinne.training.surrogates import SurrogateModule, checked_huber, huber_loss


class _Samples(NamedTuple):
    """Rows with energies at some k-points each."""

    x: Float[Tensor, "r dx"]
    kpoints: Float[Tensor, "r k 2"]
    energies: Float[Tensor, "r 2 k"]  # labels in eV
    shares: Float[Tensor, "r 2 k"]  # of each energy in the loss of its row
    weights: Float[Tensor, " r"]  # of each row


class LightningTightBinding(SurrogateModule[TightBindingSurrogate]):
    """Trains a `TightBindingSurrogate` by the Huber loss of band energies, those near the band edges with more weight.

    A training step sees a few k-points of each design and of every grid, drawn with a probability that grows towards the band
    edges; energies are compared up to a shift of each design. Validation takes all k-points of the property's own grid.

    Args:
        huber: error at which the loss goes from quadratic to linear, in eV.
        kpoints_per_step: k-points of each design in a training step.
    """

    defaults = training_options(
        partial(SOAP, lr=6e-3, betas=(0.95, 0.98), weight_decay=1e-3),
        warmup=0.05,
        batch_size=64,
        max_epochs=420,
        gradient_clip_val=1.0,
    )

    def __init__(
        self,
        network: TightBindingSurrogate | Mapping[str, object],
        *,
        huber: float = 0.03,
        kpoints_per_step: int = 8,
        **options: Unpack[TrainingOptions],
    ) -> None:
        super().__init__(network, **options)
        check_at_least(1, kpoints_per_step=kpoints_per_step)
        self.huber, self.kpoints_per_step = checked_huber(huber), kpoints_per_step

    def rows(self, batch: Batch) -> int:
        """Rows with energies: in training on every grid, in validation on the property's."""
        return sum(len(_complete_rows(labels)) for labels in (batch.bands if self.training else batch.bands[:1]))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """In training the loss at a few k-points of each design on every grid."""
        if not self.training:
            return super().losses(batch)
        grids = [(labels, rows) for labels in batch.bands if len(rows := _complete_rows(labels)) > 0]
        if not grids:
            return {"loss": self._zero()}
        count = min(self.kpoints_per_step, *(len(labels.kpoints) for labels, _ in grids))
        parts = [_some_kpoints(batch.x, labels, rows, count) for labels, rows in grids]
        samples = _Samples(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        return {"loss": self._huber_loss(self.network.energies_at(samples.x, samples.kpoints), samples)}

    def evaluate(self, batch: Batch) -> Float[Tensor, "m n 2 k"]:
        """Band energies of each member in eV, on the property's own grid."""
        return self.network.energies_at(batch.x, self.network.kpoints)

    def loss(self, outputs: Float[Tensor, "m n 2 k"], batch: Batch) -> Float[Tensor, ""]:
        """Huber loss in eV of the rows that have energies, the mean over rows and members."""
        rows = _complete_rows(batch.bands[0])
        samples = _all_kpoints(batch.x, batch.bands[0], rows)
        return self._huber_loss(outputs[:, rows], samples) if len(rows) else self._zero()

    def prediction(self, outputs: Float[Tensor, "m n 2 k"]) -> Float[Tensor, "n 1"]:
        """Gap of the mean energies in eV."""
        return band_gap(relative_energies(outputs).mean(dim=0))

    def _huber_loss(self, energies: Float[Tensor, "m r 2 k"], samples: _Samples) -> Float[Tensor, ""]:
        shares = samples.shares / samples.shares.sum(dim=(1, 2), keepdim=True)
        difference = energies - samples.energies
        difference = difference - (shares * difference).sum(dim=(2, 3), keepdim=True)
        return ((shares * huber_loss(difference, self.huber)).sum(dim=(2, 3)) * samples.weights).mean()

    def _zero(self) -> Float[Tensor, ""]:
        """Zero, with a gradient for every parameter."""
        return torch.stack([0 * parameter.sum() for parameter in self.network.parameters()]).sum()


def _complete_rows(labels: BandLabels) -> Int[Tensor, " r"]:
    return labels.energies.flatten(start_dim=1).isfinite().all(dim=1).nonzero()[:, 0]


def _all_kpoints(x: Float[Tensor, "n dx"], labels: BandLabels, rows: Int[Tensor, " r"]) -> _Samples:
    energies = relative_energies(labels.energies[rows])
    weights = edge_weights(energies)
    return _Samples(x[rows], labels.kpoints.expand(len(rows), -1, -1), energies, weights, weights.mean(dim=(1, 2)))


def _some_kpoints(x: Float[Tensor, "n dx"], labels: BandLabels, rows: Int[Tensor, " r"], count: int) -> _Samples:
    """Draw k-points; the share of a point is divided by the probability with which it was drawn."""
    whole = _all_kpoints(x, labels, rows)
    if count == len(labels.kpoints):
        return whole
    importance = whole.shares.sum(dim=1)
    chosen = torch.multinomial(importance, count)
    both = chosen.unsqueeze(1).expand(-1, 2, -1)
    shares = whole.shares.gather(2, both) / importance.gather(1, chosen).unsqueeze(1)
    return _Samples(whole.x, labels.kpoints[chosen], whole.energies.gather(2, both), shares, whole.weights)
