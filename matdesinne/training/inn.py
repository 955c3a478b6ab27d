"""The LightningModule of the invertible neural network."""

from __future__ import annotations

__all__ = ["LightningINN"]

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.models.inn import INN
from matdesinne.models.mmd import Kernels, kernel_mmd
from matdesinne.training.module import InverseModule, TrainingOptions, training_options
from matdesinne.training.optimizers import Muon


class LightningINN(InverseModule[INN]):
    r"""Trains an `INN` in both directions, by squared errors (L2) and maximum mean discrepancies (MMD).

    Loss: :math:`\lambda_y \|y - \hat y\|^2 + \lambda_z MMD^2([\hat y, \hat z], [y, N(0, 1)]) + \lambda_x MMD^2(\hat u, u)`, the
    gradient of the second term blocked through :math:`\hat y`, and with padding :math:`\lambda_p` times its squared size.

    References:
        Ardizzone et al., Analyzing inverse problems with invertible neural networks, ICLR 2019, arXiv 1808.04730;
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

    Args:
        lambda_y: weight of the squared error of the property.
        lambda_z: weight of the discrepancy of the latent variables.
        lambda_x: weight of the discrepancy of the designs that the backward direction gives.
        lambda_padding: weight of the squared size of the padding that the forward direction gives.
        scales: widths of the kernels of both discrepancies, in standardised units.
        kernels_z: other kernels of the latent variables, see `kernel_mmd`; ``None`` for those of `scales`.
        kernels_x: the same for the designs.
    """

    defaults = training_options(
        partial(Muon, lr=5e-3, weight_decay=1e-4), warmup=0.05, batch_size=512, max_epochs=1, gradient_clip_val=10.0
    )

    def __init__(
        self,
        network: INN | Mapping[str, object],
        *,
        lambda_y: float = 30.0,
        lambda_z: float = 30.0,
        lambda_x: float = 30.0,
        lambda_padding: float = 1.0,
        scales: Sequence[float] = (0.45, 1.0, 2.0),
        kernels_z: Kernels | None = None,
        kernels_x: Kernels | None = None,
        **options: Unpack[TrainingOptions],
    ) -> None:
        super().__init__(network, **options)
        self.lambda_y, self.lambda_z, self.lambda_x, self.lambda_padding = lambda_y, lambda_z, lambda_x, lambda_padding
        self.scales = tuple(scales)
        own = [(scale**2, 1.0) for scale in self.scales]
        self.kernels_z, self.kernels_x = kernels_z or own, kernels_x or own

    def standard_losses(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        """The four terms, each before its weight, and their weighted sum."""
        network = self.network
        padding = network.padding_noise * torch.randn(len(u), network.padding, device=u.device)
        y_hat, z_hat, rest = network.forward_direction(u, padding)
        z = torch.randn(len(u), network.latent_dimension, device=u.device)
        terms = {
            "y": (y_hat - v).square().sum(dim=1).mean(),
            "z": kernel_mmd(torch.cat([y_hat.detach(), z_hat], 1), torch.cat([v, z[:, : network.dz]], 1), self.kernels_z),
            "x": kernel_mmd(network.decode(z, v), u, self.kernels_x),
        }
        loss = self.lambda_y * terms["y"] + self.lambda_z * terms["z"] + self.lambda_x * terms["x"]
        if network.padding:
            terms["padding"] = rest.square().sum(dim=1).mean()
            loss = loss + self.lambda_padding * terms["padding"]
        return {"loss": loss, **terms}
