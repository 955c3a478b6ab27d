"""A table of designs from the prior of a simulator, with the data that it draws for them."""

from __future__ import annotations

__all__ = ["SimulatorSource"]

from collections.abc import Sequence
from pathlib import Path

import torch

from matdesinne.data.sources import Source
from matdesinne.data.table import DesignTable
from matdesinne.oracles.simulators import Simulator
from matdesinne.space import DesignSpace
from matdesinne.targets import Property


class SimulatorSource(Source):
    """Designs from the prior of a simulator, each simulated once.

    Args:
        simulator: draws designs and their data.
        count: number of rows.
        seed: of the draw.
    """

    def __init__(self, simulator: Simulator, count: int, seed: int) -> None:
        self.simulator, self.count, self.seed, self.name = simulator, count, seed, type(simulator).__name__

    def load(self, space: DesignSpace, properties: Sequence[Property], root: Path | None = None) -> DesignTable:
        """Draw and simulate."""
        generator = torch.Generator().manual_seed(self.seed)
        x = self.simulator.sample_prior(self.count, generator)
        return DesignTable(x, self.simulator.simulate(x, generator), torch.arange(self.count))
