"""Ensemble of perceptrons on the property itself."""

from __future__ import annotations

__all__ = ["MLPSurrogate"]

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.models.networks import EnsemblePerceptron
from matdesinne.network import check_at_least
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.surrogates.base import Linearization, Surrogate, spread_of
from matdesinne.targets import Property


class MLPSurrogate(Surrogate):
    r"""Deep ensemble of perceptrons, :math:`y = \min_k p_k(x) - \max_k q_k(x)`.

    A gap is a difference of extrema over k-points, so it has kinks where the extremum jumps; so has a difference of extrema
    of smooth outputs. With one piece it is the plain perceptron p - q.

    References:
        Lakshminarayanan, Pritzel, Blundell, Simple and scalable predictive uncertainty estimation using deep ensembles,
        NeurIPS 2017, arXiv 1612.01474.

    Args:
        pieces: number of outputs under each extremum, for each property.
    """

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        prototype: Prototype | None = None,
        *,
        members: int = 4,
        hidden: int = 256,
        depth: int = 3,
        pieces: int = 16,
    ) -> None:
        super().__init__(space, properties, prototype)
        check_at_least(1, members=members, hidden=hidden, pieces=pieces)
        check_at_least(0, depth=depth)
        self.members, self.hidden, self.depth, self.pieces = members, hidden, depth, pieces
        outputs = len(properties) * 2 * pieces
        self.network = EnsemblePerceptron(members, self.features.size, outputs, hidden, depth)
        with torch.no_grad():
            # spread out, so that one piece does not win everywhere
            self.network.biases[-1].copy_(torch.linspace(0, 1, 2 * pieces).repeat(len(properties)).expand(members, 1, outputs))

    def member_predictions(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "m n dy"]:
        """Differences of extrema of the outputs of each member."""
        return self._extrema(self.network(features))

    def _extrema(self, outputs: Float[Tensor, "m n o"]) -> Float[Tensor, "m n dy"]:
        lowest, highest = self._pieces(outputs)
        return self.target_scale.inverse(lowest.amin(dim=3) - highest.amax(dim=3))

    def _pieces(self, outputs: Float[Tensor, "m n o"]) -> tuple[Float[Tensor, "m n dy p"], Float[Tensor, "m n dy p"]]:
        lowest, highest = outputs.unflatten(2, (len(self.properties), 2, self.pieces)).unbind(dim=3)
        return lowest, highest

    def _linearize(self, x: Float[Tensor, "n dx"]) -> Linearization:
        """With the two pieces that carry the extrema alone: the others have no gradient."""
        x, features = self._traced_features(x)
        outputs, arguments = self.network.evaluate(features)
        with torch.no_grad():
            members = self._extrema(outputs)
            lowest, highest = self._pieces(outputs)
        places = torch.stack([lowest.argmin(dim=3), self.pieces + highest.argmax(dim=3)], dim=3)
        rows: list[Tensor] = []
        for j in range(len(self.properties)):
            columns = places[:, :, j] + 2 * self.pieces * j
            factors = (self.target_scale.std[j] / len(members) * x.new_tensor([1.0, -1.0])).expand(columns.shape)
            slope = self.network.pull_back(arguments, columns, factors)
            with torch.enable_grad():
                rows += torch.autograd.grad((features * slope).sum(), x, retain_graph=j + 1 < len(self.properties))
        return Linearization(members.mean(dim=0), self._calibrated(spread_of(members)), torch.stack(rows, dim=1))
