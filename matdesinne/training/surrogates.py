"""The LightningModules of the surrogates on the property and on band energies at fixed k-points."""

from __future__ import annotations

__all__ = ["LightningBands", "LightningForwardINN", "LightningMLP", "SurrogateModule", "huber_loss"]

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, TypeVar, Unpack

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torchmetrics import MeanAbsoluteError, MeanSquaredError

from matdesinne.bands import band_gap, edge_weights, own_grids, relative_energies
from matdesinne.errors import ConfigError
from matdesinne.network import Batch
from matdesinne.surrogates.bands import BandSurrogate
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.inn import INNSurrogate
from matdesinne.surrogates.mlp import MLPSurrogate
from matdesinne.targets import Property
from matdesinne.training.module import DesignModule, TrainingOptions, adamw, training_options

S = TypeVar("S", bound=Surrogate)


class SurrogateModule(DesignModule[S]):
    """Trains a surrogate; validation logs the errors ``val/mae`` and ``val/rmse`` of its mean prediction.

    The errors are in the unit of the property; one below a label that is censored at the floor does not count. A subclass
    fills `loss`.
    """

    chooses_epochs: ClassVar[bool] = True
    """Whether validation rows decide which epoch is the best, so that they must stay out of training."""

    def __init__(self, network: S | Mapping[str, object], **options: Unpack[TrainingOptions]) -> None:
        super().__init__(network, **options)
        self.val_mae, self.val_rmse = MeanAbsoluteError(), MeanSquaredError(squared=False)

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Float[Tensor, ""]:
        """The loss of what `evaluate` gave."""

    def evaluate(self, batch: Batch) -> Tensor:
        """What the network gives for the designs of a batch, its members' predictions: one pass serves loss and prediction."""
        return self.network.member_predictions(self.network.features(batch.x))

    def prediction(self, outputs: Tensor) -> Float[Tensor, "n dy"]:
        """Mean prediction in physical units from what `evaluate` gave."""
        return outputs.mean(dim=0)

    def standard_residual(self, outputs: Float[Tensor, "m n dy"], batch: Batch) -> Float[Tensor, "m n dy"]:
        """Errors of the members in standardised units, one-sided where a label is censored at the floor."""
        return one_sided(outputs - batch.y, batch.y, self.network.properties) / self.network.target_scale.std

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss alone."""
        return {"loss": self.loss(self.evaluate(batch), batch)}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss and the errors of the mean prediction."""
        outputs = self.evaluate(batch)
        self._log_losses("val", {"loss": self.loss(outputs, batch)}, batch)
        error = one_sided(self.prediction(outputs) - batch.y, batch.y, self.network.properties)
        error = error[error.isfinite()]  # a row without a label on the property's grid has none
        if len(error):
            for metric in (self.val_mae, self.val_rmse):
                metric.update(error, torch.zeros_like(error))
        self.log_dict({"val/mae": self.val_mae, "val/rmse": self.val_rmse}, on_epoch=True)


class LightningMLP(SurrogateModule[MLPSurrogate]):
    """Trains an `MLPSurrogate` by the Huber loss of each member.

    Args:
        huber: error at which the loss goes from quadratic to linear, in standard deviations of the property.
    """

    defaults = training_options(
        adamw(lr=2e-3, weight_decay=0.03), warmup=0.05, batch_size=128, max_epochs=120, gradient_clip_val=1.0
    )

    def __init__(
        self, network: MLPSurrogate | Mapping[str, object], *, huber: float = 1.0, **options: Unpack[TrainingOptions]
    ) -> None:
        super().__init__(network, **options)
        self.huber = checked_huber(huber)

    def loss(self, outputs: Float[Tensor, "m n dy"], batch: Batch) -> Float[Tensor, ""]:
        """Huber loss in standardised units, the mean over rows and members."""
        return huber_loss(self.standard_residual(outputs, batch), self.huber).mean()


class LightningForwardINN(SurrogateModule[INNSurrogate]):
    """Trains an `INNSurrogate`, the paper's forward model, by the squared error."""

    defaults = training_options(
        adamw(lr=1e-3, weight_decay=1e-5), warmup=0.05, batch_size=256, max_epochs=150, gradient_clip_val=1.0
    )

    def loss(self, outputs: Float[Tensor, "m n dy"], batch: Batch) -> Float[Tensor, ""]:
        """Squared error in standardised units."""
        return self.standard_residual(outputs, batch).square().mean()


class LightningBands(SurrogateModule[BandSurrogate]):
    """Trains a `BandSurrogate` by the Huber loss of the band energies, those near the band edges with more weight.

    Where each row carries several energies at the same k-points, those of the members of a teacher (see `distilled_rows`), each
    member learns from one of them, so that the students disagree where the teachers do.

    Args:
        huber: error at which the loss goes from quadratic to linear, in eV.
    """

    defaults = training_options(
        adamw(lr=2e-3, weight_decay=1e-3), warmup=0.05, batch_size=64, max_epochs=500, gradient_clip_val=1.0
    )

    def __init__(
        self, network: BandSurrogate | Mapping[str, object], *, huber: float = 0.03, **options: Unpack[TrainingOptions]
    ) -> None:
        super().__init__(network, **options)
        self.huber = checked_huber(huber)

    def evaluate(self, batch: Batch) -> Float[Tensor, "m n 2 k"]:
        """Band energies of each member in eV."""
        return self.network.energies(batch.x)

    def loss(self, outputs: Float[Tensor, "m n 2 k"], batch: Batch) -> Float[Tensor, ""]:
        """Huber loss of the energies relative to the mean valence energy of their design, in eV."""
        known = batch.y[:, 0].isfinite()
        labels = relative_energies(torch.stack([grid.energies for grid in own_grids(batch.bands)]))
        weights = edge_weights(labels.flatten(end_dim=1)).view_as(labels)
        return (weights * huber_loss(outputs - labels, self.huber))[:, known].mean()

    def prediction(self, outputs: Float[Tensor, "m n 2 k"]) -> Float[Tensor, "n 1"]:
        """Gap of the mean energies in eV."""
        return band_gap(outputs.mean(dim=0))


def checked_huber(huber: float) -> float:
    """Raise a `ConfigError` if the error at which a Huber loss goes from quadratic to linear is not positive."""
    if not huber > 0:
        raise ConfigError(f"Expected huber > 0, got {huber}: give the error at which the loss becomes linear.")
    return huber


def huber_loss(residual: Float[Tensor, "*n"], delta: float) -> Float[Tensor, "*n"]:
    """Quadratic below delta, of slope one above; delta in the unit of the residual."""
    size = residual.abs()
    return torch.where(size < delta, size.square() / (2 * delta), size - delta / 2)


def one_sided(
    residual: Float[Tensor, "... n dy"], y: Float[Tensor, "n dy"], properties: tuple[Property, ...]
) -> Float[Tensor, "... n dy"]:
    """Residuals, zero where a prediction lies below a label that says "at or below the floor"."""
    columns = []
    for j, prop in enumerate(properties):
        column = residual[..., j]
        if prop.censored and prop.floor is not None:
            column = torch.where(y[:, j] <= prop.floor, functional.relu(column), column)
        columns.append(column)
    return torch.stack(columns, dim=-1)
