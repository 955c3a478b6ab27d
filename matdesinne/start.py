"""The design that a search starts from, such as the sample in the laboratory, and distances to it."""

from __future__ import annotations

__all__ = ["Start"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.space import DesignSpace


@dataclass(frozen=True)
class Start:
    """A design in physical units, and half the width of the box of each parameter, the unit of distances.

    Example:
        >>> from matdesinne.space import Parameter
        >>> space = DesignSpace([Parameter("a", "angstrom", 3.0, 3.4), Parameter("field", "V/angstrom", -1.0, 1.0)])
        >>> Start.of(space, torch.tensor([3.2, 0.0])).distance(torch.tensor([[3.2, 0.5], [3.4, 0.0]])).tolist()
        [0.5, 1.0]
    """

    design: Float[Tensor, " dx"]
    half_width: Float[Tensor, " dx"]

    @classmethod
    def of(cls, space: DesignSpace, design: Float[Tensor, " dx"]) -> Start:
        """Count distances in half-widths of the box of `space`: not of a narrowed one, so that runs can be compared."""
        return cls(design, space.half_width)

    def distance(self, designs: Float[Tensor, "n dx"]) -> Float[Tensor, " n"]:
        """Length of the change from the start to each design, in half-widths of the box."""
        return ((designs - self.design) / self.half_width).norm(dim=1)

    def nearest_images(self, designs: Float[Tensor, "n dx"], space: DesignSpace) -> Float[Tensor, "n dx"]:
        """Take the image of each design under the symmetries that is nearest to the start and inside the bounds of a space."""
        images = space.images(designs)
        distance = ((images - self.design) / self.half_width).norm(dim=2)
        outside = ~space.allows(images)
        outside[:, 0] = False
        nearest = distance.masked_fill(outside, torch.inf).argmin(dim=1)
        return images[torch.arange(len(designs)), nearest]

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain containers for JSON."""
        return {"design": self.design.tolist(), "half_width": self.half_width.tolist()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Sequence[float]]) -> Start:
        """Rebuild what `to_dict` wrote."""
        return cls(torch.tensor(plain["design"]), torch.tensor(plain["half_width"]))
