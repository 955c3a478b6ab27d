"""Tables of designs from a prior, labelled by an analytic problem or a simulator."""

from __future__ import annotations

__all__ = ["AnalyticSource", "SimulatorSource"]

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from matdesinne.data.sources import Source
from matdesinne.data.table import DesignTable
from matdesinne.errors import ConfigError
from matdesinne.oracles.analytic import AnalyticProblem
from matdesinne.oracles.simulators import Simulator
from matdesinne.space import DesignSpace
from matdesinne.targets import Property

_CHUNK_ROWS = 1 << 22
"""Designs of an analytic problem that are drawn at once."""
_FLATTENING = 0.25
"""Power of the density of a property by which its rare values are kept rather than common ones."""


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


class AnalyticSource(Source):
    """Designs from the prior of an analytic problem, labelled by its exact forward function.

    Of the `drawn` designs `count` are kept, rare properties rather than common ones: each with a weight of one over the fourth
    root of the density of every property. p(x | y) does not depend on how often each y is shown.
    """

    def __init__(self, problem: AnalyticProblem, count: int, seed: int, drawn: int | None = None) -> None:
        self.problem, self.count, self.seed, self.name = problem, count, seed, type(problem).__name__
        self.drawn = count if drawn is None else drawn
        if self.drawn < count:
            raise ConfigError(f"Expected drawn of at least count, got {drawn} and {count}: draw more.")

    def load(self, space: DesignSpace, properties: Sequence[Property], root: Path | None = None) -> DesignTable:
        """Draw and label."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.drawn == self.count:
            x = self.problem.sample_prior(self.count, generator)
            return DesignTable(x, self.problem.forward(x), torch.arange(self.count))
        log_density: Callable[[Tensor], Tensor] | None = None
        x = y = key = torch.empty(0)
        for start in tqdm(range(0, self.drawn, _CHUNK_ROWS), desc=f"Drawing {self.name}", unit="chunk", leave=False):
            size = min(_CHUNK_ROWS, self.drawn - start)
            new_x = self.problem.sample_prior(size, generator)
            new_y = self.problem.forward(new_x)
            log_density = log_density or _log_density(new_y)
            # Gumbel's trick: the largest of log-weight plus noise are a draw without replacement
            noise = -torch.log(-torch.log(torch.rand(size, generator=generator).clamp(1e-12, 1 - 1e-7)))
            new_key = noise - _FLATTENING * log_density(new_y)
            if len(key) == self.count:
                ahead = new_key > key.min()
                new_x, new_y, new_key = new_x[ahead], new_y[ahead], new_key[ahead]
            x, y, key = torch.cat([x, new_x]), torch.cat([y, new_y]), torch.cat([key, new_key])
            kept = key.topk(min(self.count, len(key))).indices
            x, y, key = x[kept], y[kept], key[kept]
        return DesignTable(x, y, torch.arange(self.count))


def _log_density(y: Float[Tensor, "n dy"], bins: int = 64) -> Callable[[Tensor], Tensor]:
    """Sum over the properties of the logarithm of a histogram of y, as a function of other values."""
    low, high = y.amin(dim=0), y.amax(dim=0)

    def place(values: Float[Tensor, "m dy"]) -> Int[Tensor, "m dy"]:
        return ((values - low) / (high - low) * bins).long().clamp(0, bins - 1)

    counts = torch.stack([torch.bincount(column, minlength=bins) for column in place(y).unbind(dim=1)])
    table = counts.clamp_min(1).log()
    return lambda values: torch.stack([row[column] for row, column in zip(table, place(values).T, strict=True)]).sum(dim=0)
