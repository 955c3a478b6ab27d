"""Invertible neural network x <-> [y, z], trained in both directions."""

from __future__ import annotations

__all__ = ["INN"]

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.models.base import Coordinates, InverseModel
from matdesinne.models.coupling import affine_network
from matdesinne.models.mmd import mmd
from matdesinne.space import DesignSpace
from matdesinne.targets import Property


class INN(InverseModel):
    r"""One bijection [u, padding] <-> [y, z, padding]; z has dx - dy dimensions.

    Loss: :math:`\lambda_y \|y - \hat y\|^2 + \lambda_z MMD^2([\hat y, \hat z], [y, N(0, 1)]) + \lambda_x MMD^2(\hat u, u)`, the
    gradient of the second term blocked through :math:`\hat y`, and with padding its squared size.

    References:
        Ardizzone et al., Analyzing inverse problems with invertible neural networks, ICLR 2019, arXiv 1808.04730;
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

    Args:
        space: the designs; more parameters than properties.
        properties: what they have.
        blocks: number of FrEIA's affine coupling blocks.
        hidden: width of the subnetworks.
        depth: number of hidden layers of the subnetworks.
        padding: extra dimensions on both sides, for capacity.
        lambda_y: weight of the property's squared error.
        lambda_z: weight of the latent discrepancy.
        lambda_x: weight of the backward discrepancy.
        lambda_padding: weight of the padding's squared size, forwards.
        scales: widths of the kernels of both discrepancies, in standardised units.
        paper_network: use the network of the paper's code, see `affine_network`.
        padding_noise: standard deviation of the noise on the padding.
        target_noise: see `InverseModel`.
        coordinates: see `InverseModel`.
        optimization: fields of `matdesinne.network.Optimization`.
    """

    label = "INN"

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        blocks: int = 8,
        hidden: int = 128,
        depth: int = 2,
        padding: int = 0,
        lambda_y: float = 1.0,
        lambda_z: float = 1.0,
        lambda_x: float = 1.0,
        lambda_padding: float = 1.0,
        scales: Sequence[float] = (0.45, 1.0, 2.0),
        paper_network: bool = False,
        padding_noise: float = 0.05,
        target_noise: float | None = None,
        coordinates: Coordinates = "box",
        optimization: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(space, properties, target_noise, coordinates, optimization)
        self.save_hyperparameters(ignore=["space", "properties"], logger=False)
        self.dy = len(properties)
        self.dz = space.dimension - self.dy
        if self.dz < 1:
            raise ConfigError(
                f"Expected more parameters than properties for an INN, got {space.dimension} and {self.dy}: use model=cinn."
            )
        self.padding, self.padding_noise, self.scales = padding, padding_noise, tuple(scales)
        self.weights = {"y": lambda_y, "z": lambda_z, "x": lambda_x, "padding": lambda_padding}
        self.network = affine_network(space.dimension + padding, 0, blocks, hidden, depth, paper_network)

    @property
    def latent_dimension(self) -> int:
        """The latent variables and the padding."""
        return self.dz + self.padding

    def forward_properties(self, u: Float[Tensor, "n dx"]) -> Float[Tensor, "n dy"]:
        """The property that the forward direction predicts, both in standardised coordinates."""
        return self._forward(u, torch.zeros(u.shape[0], self.padding, device=u.device))[:, : self.dy]

    def _terms_standard(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        noise = self.padding_noise * torch.randn(u.shape[0], self.padding, device=u.device)
        forward = self._forward(u, noise)
        y_hat, z_hat, rest = forward.split([self.dy, self.dz, self.padding], dim=1)
        z = torch.randn(u.shape[0], self.dz + self.padding, device=u.device)
        terms = {
            "y": (y_hat - v).square().sum(dim=1).mean(),
            "z": mmd(torch.cat([y_hat.detach(), z_hat], dim=1), torch.cat([v, z[:, : self.dz]], dim=1), self.scales),
            "x": mmd(self._decode(z, v), u, self.scales),
        }
        if self.padding:
            terms["padding"] = rest.square().sum(dim=1).mean()
        loss = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return {"loss": loss, **terms}

    def _forward(self, u: Float[Tensor, "n dx"], padding: Float[Tensor, "n p"]) -> Float[Tensor, "n dt"]:
        return self.network(torch.cat([u, padding], dim=1), jac=False)[0]

    def _decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"]) -> Float[Tensor, "n dx"]:
        latent, noise = z.split([self.dz, self.padding], dim=1)
        full = torch.cat([v, latent, self.padding_noise * noise], dim=1)
        return self.network(full, rev=True, jac=False)[0][:, : self.space.dimension]
