"""The forward INN of the paper as a surrogate."""

from __future__ import annotations

__all__ = ["INNSurrogate"]

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from matdesinne.features import BoxFeatures
from matdesinne.models.base import Coordinates, check_coordinates
from matdesinne.models.coupling import affine_network
from matdesinne.network import Batch
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property
from matdesinne.transforms import PhysicalUnits

_SQUARED = 1e3
"""In standard deviations: no error is that large, so that the Huber loss is the squared error of the paper."""


class INNSurrogate(Surrogate):
    """FrEIA coupling blocks whose first dy outputs are the properties, trained on squared error; one member, no spread.

    References:
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x (the forward model that localizes there).

    Args:
        space: the designs.
        properties: what they have.
        prototype: the atoms of a design, where designs are crystals; the network sees the parameters all the same.
        blocks: number of coupling blocks.
        hidden: width of the subnetworks.
        depth: number of hidden layers of the subnetworks.
        paper_network: use the network of the paper's code, see `affine_network`.
        coordinates: ``"box"`` or ``"physical"``: what the network sees and gives, see `InverseModel`.
        optimization: fields of `matdesinne.network.Optimization`.
    """

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        prototype: Prototype | None = None,
        *,
        blocks: int = 6,
        hidden: int = 256,
        depth: int = 2,
        paper_network: bool = False,
        coordinates: Coordinates = "box",
        optimization: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(space, properties, None, optimization)
        self.prototype = prototype  # for structures; the network needs as many inputs as parameters
        self.save_hyperparameters(ignore=["space", "properties", "prototype"], logger=False)
        check_coordinates(coordinates)
        if coordinates == "physical":
            self.features = BoxFeatures(space, PhysicalUnits(space.dimension))
            self.target_scale = PhysicalUnits(len(self.properties))
        self.network = affine_network(space.dimension, 0, blocks, hidden, depth, paper_network)

    def _members(self, features: Float[Tensor, "n dx"]) -> Float[Tensor, "m n dy"]:
        output = self.network(features, jac=False)[0][:, : len(self.properties)]
        return self.target_scale.inverse(output).unsqueeze(0)

    def _terms(self, batch: Batch) -> dict[str, Tensor]:
        return self._property_terms(self._members(self.features(batch.x)), batch.y, _SQUARED)
