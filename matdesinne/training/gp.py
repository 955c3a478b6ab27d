"""The LightningModule of the Gaussian process."""

from __future__ import annotations

__all__ = ["LightningGP"]

import math
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.network import Batch
from matdesinne.surrogates.gp import GPSurrogate
from matdesinne.surrogates.gp_bands import BandGPSurrogate
from matdesinne.training.module import TrainingOptions
from matdesinne.training.surrogates import SurrogateModule


class LightningGP(SurrogateModule[GPSurrogate | BandGPSurrogate]):
    """Trains a Gaussian process by its marginal likelihood, on all rows at once; one step of LBFGS is a whole search.

    Validation logs the negative logarithm of the density of each validation row given the training rows. Nothing is chosen by
    it, so validation rows may train the process, too.
    """

    defaults: ClassVar[TrainingOptions] = {
        "optimizer": partial(torch.optim.LBFGS, lr=1.0, max_iter=100, line_search_fn="strong_wolfe"),
        "scheduler": None,
        "batch_size": 5000,
        "max_epochs": 1,
        "gradient_clip_val": 1e6,
    }
    chooses_epochs = False

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Negative logarithm of the marginal likelihood of the rows, per row."""
        return {"loss": self.network.negative_log_density(batch)}

    def evaluate(self, batch: Batch) -> Float[Tensor, "2 n dy"]:
        """Mean and standard deviation of the rows in physical units, given the training rows."""
        return self.network.mean_and_std(self.network.features(batch.x))

    def prediction(self, outputs: Float[Tensor, "2 n dy"]) -> Float[Tensor, "n dy"]:
        """The mean in physical units."""
        return outputs[0]

    def loss(self, outputs: Float[Tensor, "2 n dy"], batch: Batch) -> Float[Tensor, ""]:
        """Negative logarithm of the normal density of each row, in standardised units."""
        mean, std = outputs
        scale = self.network.target_scale.std
        known = batch.y.isfinite()
        score = ((batch.y - mean) / std)[known].square() / 2
        return (score + (std / scale)[known].log() + 0.5 * math.log(2 * math.pi)).mean()
