"""Rows of similar materials, as designs of another material's space."""

from __future__ import annotations

__all__ = ["Relative"]

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.data.sources import Source
from matdesinne.data.table import DesignTable, check_table
from matdesinne.errors import ConfigError
from matdesinne.space import DesignSpace
from matdesinne.structures import CELL_PARAMETERS
from matdesinne.targets import Property

_SAME_DESIGN = 1e-4
"""Two designs are one where they differ by less than this share of the box in every parameter."""


@dataclass(frozen=True)
class Relative:
    """A similar material: the same parameters, and the same properties on the same k-points.

    Args:
        source: its table.
        space: its designs, with their reference.
    """

    source: Source
    space: DesignSpace

    def rows(self, space: DesignSpace, properties: Sequence[Property], without: Float[Tensor, "m dx"]) -> DesignTable:
        """Its rows at the strain that they have, as designs of another material's space.

        Cell lengths keep their ratio to the reference, other parameters their distance to it. Rows at the strain of one of
        the designs `without` are left out: an error on these would not be that of a new strain.

        Raises:
            ConfigError: if it has other parameters.
            DatasetError: if the table cannot be read or breaks its declaration.
        """
        if self.space.names != space.names:
            raise ConfigError(
                f"Expected the parameters {list(space.names)} of a similar material, got {list(self.space.names)}: correct "
                "data.relatives."
            )
        table = check_table(self.source.load(self.space, properties), self.space, properties, self.source.name)
        length = torch.tensor([name in CELL_PARAMETERS[:3] for name in space.names])
        ratio = torch.where(length, space.reference / self.space.reference, torch.ones(()))
        x = space.reference + (table.x - self.space.reference) * ratio
        width = space.upper - space.lower
        taken = torch.cdist(x / width, without / width, p=torch.inf).amin(dim=1) < _SAME_DESIGN if len(without) else None
        table = replace(table, x=x)
        return table if taken is None else table.take((~taken).nonzero()[:, 0])
