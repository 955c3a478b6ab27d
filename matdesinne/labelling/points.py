"""The designs to label: rows of a table, or points of a Sobol sequence."""

from __future__ import annotations

__all__ = ["Points", "SobolPoints", "read_points"]

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import qmc
from torch import Tensor

from matdesinne.data.table import read_frame, read_numbers
from matdesinne.errors import ConfigError
from matdesinne.network import load_network, run_folder
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate

_DECIMALS = 9
"""Decimals that Sobol designs are rounded to, as in the packaged set, so that a text file holds the same designs."""
_BLOCK = 1 << 10


@dataclass(frozen=True)
class Points:
    """Designs to label, in physical units and float64, and the number of each in its source."""

    x: Float[Tensor, "n dx"]
    index: Int[Tensor, " n"]

    def __len__(self) -> int:
        """Number of designs."""
        return len(self.x)


def read_points(path: str | Path, space: DesignSpace) -> Points:
    """Read designs from a CSV or Parquet file; columns that are not parameters are ignored.

    A column ``index``, if there is one, numbers the designs; otherwise they are numbered from 0.

    Raises:
        DatasetError: if a parameter's column is missing or holds anything but finite numbers.
    """
    path = Path(path)
    names = [str(name) for name in read_frame(path).columns]
    columns = [*space.columns, "index"] if "index" in names else list(space.columns)
    values = read_numbers(path, columns, ignore=names, labels=space.labels)
    x = values[:, : space.dimension]
    return Points(x, values[:, -1].long() if "index" in names else torch.arange(len(x)))


@dataclass(frozen=True)
class SobolPoints:
    r"""Points u of a scrambled Sobol sequence, mapped to the box: :math:`x = m + h (2u - 1)`.

    Here m is the middle of the bounds and h their half width. The sequence of `mos2_gpaw` has the seed 20211209.

    References:
        Owen, Scrambling Sobol' and Niederreiter-Xing points, J. Complexity 14, 466 (1998), doi 10.1006/jcom.1998.0487.

    Args:
        count: number of points to take.
        start: number of the first point to consider.
        seed: seed of the scrambling.
        reserved: points whose number ends in this digit are skipped, because they are kept for independent checks.
        min_gap: points for which the surrogate predicts a smaller first property are skipped; ``None``: no point is.
        surrogate: folder of a run, or ``"pretrained"``.
    """

    count: int
    start: int
    seed: int
    reserved: int | None = None
    min_gap: float | None = None
    surrogate: str = "pretrained"

    def __post_init__(self) -> None:
        """Check count and start."""
        if self.count < 1 or self.start < 0:
            raise ConfigError(f"Expected count >= 1 and start >= 0, got {self.count} and {self.start}: correct them.")

    def draw(self, space: DesignSpace) -> Points:
        """Take the first `count` points that are not skipped.

        Raises:
            ConfigError: if the space has no bounds, or the sequence has too few points.
            CheckpointError: if the surrogate cannot be read.
        """
        if not space.bounded:
            raise ConfigError("Expected a design space with bounds for points=sobol, got an open one: give a table.")
        surrogate = None if self.min_gap is None else load_network(Surrogate, run_folder(self.surrogate), "surrogate")
        lower, upper = np.array([(parameter.lower, parameter.upper) for parameter in space.parameters]).T
        sampler = qmc.Sobol(space.dimension, scramble=True, seed=self.seed)  # rng= would scramble in another way
        if self.start:
            sampler.fast_forward(self.start)
        x, index = torch.empty(0, space.dimension, dtype=torch.float64), torch.empty(0, dtype=torch.long)
        for first in range(self.start, 1 << 24, _BLOCK):
            designs = (lower + upper) / 2 + (upper - lower) / 2 * (2 * sampler.random(_BLOCK) - 1)
            new_x, new_index = space.snap(torch.from_numpy(designs.round(_DECIMALS))), torch.arange(first, first + _BLOCK)
            keep = torch.ones(_BLOCK, dtype=torch.bool)
            if self.reserved is not None:
                keep &= new_index % 10 != self.reserved
            if surrogate is not None and self.min_gap is not None:
                keep &= surrogate.predict_many(new_x.float())[0][:, 0] >= self.min_gap
            x, index = torch.cat([x, new_x[keep]]), torch.cat([index, new_index[keep]])
            if len(x) >= self.count:
                return Points(x[: self.count], index[: self.count])
        raise ConfigError(f"Expected {self.count} points, got {len(x)} in the whole sequence: lower min_gap.")
