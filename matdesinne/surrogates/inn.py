"""The forward INN of the paper as a surrogate."""

from __future__ import annotations

__all__ = ["INNSurrogate"]

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from matdesinne.models.base import Coordinates, check_coordinates
from matdesinne.models.networks import affine_network
from matdesinne.models.published_coupling import published_network
from matdesinne.network import check_at_least
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property
from matdesinne.transforms import BoxFeatures, PhysicalUnits


class INNSurrogate(Surrogate):
    """FrEIA coupling blocks whose first dy outputs are the properties, trained on the squared error; one member, no spread.

    References:
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x (the forward model that localizes there).

    Args:
        prototype: the atoms of a design, where designs are crystals; the network sees the parameters all the same.
        paper_network: use the network of the paper's code, see `published_network`.
        coordinates: ``"box"`` or ``"physical"``: what the network sees and gives, see `InverseModel`.
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
    ) -> None:
        super().__init__(space, properties)
        self.prototype = prototype  # for structures; the network needs as many inputs as parameters
        check_coordinates(coordinates)
        check_at_least(1, blocks=blocks, hidden=hidden)
        check_at_least(0, depth=depth)
        self.blocks, self.hidden, self.depth = blocks, hidden, depth
        self.paper_network, self.coordinates = paper_network, coordinates
        if coordinates == "physical":
            self.features = BoxFeatures(space, PhysicalUnits(space.dimension))
            self.target_scale = PhysicalUnits(len(self.properties))
        self.network = (
            published_network(space.dimension, 0, blocks, hidden, depth, last_first=len(self.properties))
            if paper_network
            else affine_network(space.dimension, 0, blocks, hidden, depth)
        )

    def member_predictions(self, features: Float[Tensor, "n dx"]) -> Float[Tensor, "m n dy"]:
        """The first outputs of the network, as one member."""
        output = self.network(features, jac=False)[0][:, : len(self.properties)]
        return self.target_scale.inverse(output).unsqueeze(0)
