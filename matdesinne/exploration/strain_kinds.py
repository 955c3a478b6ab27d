"""Averages of strains, and the sets of designs that figures of strains compare."""

from __future__ import annotations

__all__ = ["AVERAGES", "CANDIDATES", "ROWS", "DesignSet", "StrainKind", "average_strain"]

from enum import Enum
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from matdesinne.space import DesignSpace

CANDIDATES, ROWS = "candidates", "rows of the data set"
"""Names of sets of designs."""
AVERAGES = ("average", "average absolute")
"""What is averaged over the lattice parameters of a kind: the strains, or their absolute values."""


class StrainKind(Enum):
    """The lattice parameters over which a strain is averaged."""

    IN_PLANE = ("a", "b", "gamma")
    OUT_OF_PLANE = ("c", "alpha", "beta")
    TENSILE = ("a", "b", "c")
    SHEAR = ("alpha", "beta", "gamma")

    @property
    def label(self) -> str:
        """The kind as figures print it."""
        return "tensile" if self is StrainKind.TENSILE else self.name.lower().replace("_", "-")


class DesignSet(NamedTuple):
    """Designs that a figure shows together: candidates for a target, or the rows of the data set beside them."""

    target: str
    name: str
    designs: Float[Tensor, "n dx"]


def average_strain(
    space: DesignSpace, designs: Float[Tensor, "n dx"], kind: StrainKind, average: str
) -> Float[np.ndarray, " n"]:
    """Returns the average, or average absolute, strain of each design over the parameters of a kind in percent."""
    strains = 100 * space.strains(designs, kind.value).double()
    return (strains if average == AVERAGES[0] else strains.abs()).mean(dim=1).numpy()
