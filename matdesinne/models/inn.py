"""Invertible neural network x <-> [y, z], trained in both directions."""

from __future__ import annotations

__all__ = ["INN"]

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.models.base import Coordinates, InverseModel
from matdesinne.models.networks import affine_network
from matdesinne.models.published_coupling import published_network
from matdesinne.network import check_at_least
from matdesinne.space import DesignSpace
from matdesinne.targets import Property


class INN(InverseModel):
    """Invertible neural network: one bijection [u, padding] <-> [y, z, padding], where z has dx - dy dimensions.

    See `LightningINN` for its loss.

    References:
        Ardizzone et al., Analyzing inverse problems with invertible neural networks, ICLR 2019, arXiv 1808.04730;
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

    Args:
        space: the designs; more parameters than properties.
        blocks: number of FrEIA's affine coupling blocks.
        padding: extra dimensions on both sides, for capacity.
        paper_network: use the network of the paper's code, see `published_network`; it takes no padding.
        padding_noise: standard deviation of the noise on the padding.
    """

    label = "INN"

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        blocks: int = 6,
        hidden: int = 96,
        depth: int = 3,
        padding: int = 1,
        paper_network: bool = False,
        padding_noise: float = 0.05,
        target_noise: float | None = None,
        coordinates: Coordinates = "box",
    ) -> None:
        super().__init__(space, properties, target_noise, coordinates)
        check_at_least(1, blocks=blocks, hidden=hidden)
        check_at_least(0, depth=depth, padding=padding)
        self.dy = len(properties)
        self.dz = space.dimension - self.dy
        if self.dz < 1:
            raise ConfigError(
                f"Expected more parameters than properties for an INN, got {space.dimension} and {self.dy}: use model=cinn."
            )
        self.blocks, self.hidden, self.depth, self.paper_network = blocks, hidden, depth, paper_network
        self.padding, self.padding_noise = padding, padding_noise
        if paper_network and padding:
            raise ConfigError(f"Expected padding=0 for the network of the paper's code, got {padding}: drop one of both.")
        self.network = (
            published_network(space.dimension, 0, blocks, hidden, depth, last_first=self.dy)
            if paper_network
            else affine_network(space.dimension + padding, 0, blocks, hidden, depth)
        )

    @property
    def latent_dimension(self) -> int:
        """The latent variables and the padding."""
        return self.dz + self.padding

    def forward_direction(
        self, u: Float[Tensor, "n dx"], padding: Float[Tensor, "n p"]
    ) -> tuple[Float[Tensor, "n dy"], Float[Tensor, "n dz"], Float[Tensor, "n p"]]:
        """Properties, latent variables and padding of designs, all in standardised coordinates."""
        y, z, rest = self.network(torch.cat([u, padding], dim=1), jac=False)[0].split([self.dy, self.dz, self.padding], dim=1)
        return y, z, rest

    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """The backward direction: designs from properties and latent variables."""
        latent, noise = z.split([self.dz, self.padding], dim=1)
        full = torch.cat([v, latent, self.padding_noise * noise], dim=1)
        return self.network(full, rev=True, jac=False)[0][:, : self.space.dimension]
