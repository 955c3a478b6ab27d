"""Models of sbi, a package for simulation-based inference, as generative models of this package."""

from __future__ import annotations

__all__ = ["FMPE", "NPE", "Peer"]

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matdesinne.errors import ConfigError
from matdesinne.models.base import InverseModel
from matdesinne.network import check_at_least
from matdesinne.space import DesignSpace
from matdesinne.targets import Property


class Peer(InverseModel):
    """A density estimator of sbi between our standardised coordinates: its network and loss, and how it samples.

    It sees designs as normal quantiles of the box, which sbi calls an unconstrained space, and standardised targets; so its own
    scaling is off and no sample leaves the box.
    """

    estimator: Any  # of sbi, whose types are not read here

    def losses(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> Float[Tensor, " n"]:
        """The loss of sbi for each row."""
        return self.estimator.loss(u, v)

    def _build(self, factory: str, model: str, **settings: int) -> nn.Module:
        """An untrained network by a factory of sbi, which takes its sizes from a batch."""
        try:
            from sbi import neural_nets
        except ImportError as error:
            raise ConfigError(
                f"Expected sbi, to which {self.label} belongs, got none: pip install sbi==0.27.0, or "
                "pip install 'matdesinne[peers]'."
            ) from error
        make = getattr(neural_nets, factory)(model, z_score_theta="none", z_score_x="none", **settings)
        # sbi leaves parts in evaluation mode
        return make(torch.zeros(2, self.space.dimension), torch.zeros(2, len(self.properties))).train()


class NPE(Peer):
    """Neural posterior estimation: an autoregressive neural spline flow of zuko, by maximum likelihood.

    References:
        Papamakarios and Murray, NeurIPS 2016, arXiv 1605.06376; Durkan et al., Neural spline flows, NeurIPS 2019,
        arXiv 1906.04032.

    Args:
        hidden: width of the subnetworks.
        transforms: number of spline transforms.
        bins: of each spline.
    """

    label = "NPE (sbi)"

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        hidden: int = 50,
        transforms: int = 5,
        bins: int = 10,
        target_noise: float | None = None,
    ) -> None:
        super().__init__(space, properties, target_noise)
        check_at_least(1, hidden=hidden, transforms=transforms)
        check_at_least(2, bins=bins)
        self.hidden, self.transforms, self.bins = hidden, transforms, bins
        sizes = {"hidden_features": hidden, "num_transforms": transforms, "num_bins": bins}
        self.estimator = self._build("posterior_nn", "zuko_nsf", **sizes)

    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """Invert the flow."""
        return self.estimator.net(v).transform.inv(z)


class FMPE(Peer):
    """Flow matching posterior estimation: a velocity field, by least squares on straight paths.

    References:
        Wildberger et al., Flow matching for scalable simulation-based inference, NeurIPS 2023, arXiv 2305.17161.

    Args:
        hidden: width of the network.
        layers: hidden layers.
        tolerance: absolute tolerance of the adaptive solver that samples; the relative one is ten times as large.
    """

    label = "FMPE (sbi)"

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        hidden: int = 100,
        layers: int = 5,
        tolerance: float = 1e-6,
        target_noise: float | None = None,
    ) -> None:
        super().__init__(space, properties, target_noise)
        check_at_least(1, hidden=hidden, layers=layers)
        self.hidden, self.layers, self.tolerance = hidden, layers, tolerance
        self.estimator = self._build("posterior_flow_nn", "mlp", hidden_features=hidden, num_layers=layers)

    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """Follow the field from noise, at time 1, to designs, at time 0, by sbi's solver."""
        from zuko.utils import odeint  # comes with sbi

        def field(t: Tensor, u: Tensor) -> Tensor:
            return self.estimator(u, v, t)

        return odeint(field, z, 1.0, 0.0, phi=(v, *self.estimator.parameters()), atol=self.tolerance, rtol=10 * self.tolerance)
