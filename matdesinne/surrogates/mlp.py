"""Ensemble of perceptrons on the property itself."""

from __future__ import annotations

__all__ = ["MLPSurrogate"]

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from matdesinne.learning import Batch
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.ensemble import EnsemblePerceptron
from matdesinne.targets import Property


class MLPSurrogate(Surrogate):
    """Deep ensemble (Lakshminarayanan et al. 2017, arXiv 1612.01474) of perceptrons, trained on squared error.

    Args:
        space: the designs.
        properties: what they have.
        members: size of the ensemble.
        hidden: width of each hidden layer.
        depth: number of hidden layers.
        optimization: fields of `matdesinne.learning.Optimization`.
    """

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        members: int = 4,
        hidden: int = 256,
        depth: int = 3,
        optimization: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(space, properties, optimization)
        self.save_hyperparameters(ignore=["space", "properties"], logger=False)
        self.network = EnsemblePerceptron(members, space.dimension, len(properties), hidden, depth)

    def _members(self, u: Float[Tensor, "n dx"]) -> Float[Tensor, "m n dy"]:
        return self.target_scale.inverse(self.network(u))

    def _terms(self, batch: Batch) -> dict[str, Tensor]:
        return self._property_terms(self._members(self.scale(batch.x)), batch.y)
