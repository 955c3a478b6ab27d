"""Training designs that a surrogate labels: for generative models, flat in the property, and for distilled surrogates."""

from __future__ import annotations

__all__ = ["SyntheticDesigns", "SyntheticRows", "distilled_rows", "held_out"]

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from matdesinne.bands import BandLabels, band_gap
from matdesinne.data.table import DesignTable
from matdesinne.errors import ConfigError, TrainingError
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.tight_binding.surrogate import TightBindingSurrogate

_BINS = 64
_STEP = 0.12  # typical length of a Metropolis step, in half-widths of the box
_HELD_OUT = 50  # one in so many designs is for validation


class SyntheticRows(NamedTuple):
    """Designs that a surrogate has labelled, and its prior of y: the arguments of `DesignDataModule.with_rows`."""

    train: DesignTable
    validation: DesignTable
    prior: Float[Tensor, "m dy"]


@dataclass(frozen=True)
class SyntheticDesigns:
    r"""As many labelled designs as wanted, where the surrogate is as good as the labels.

    p(x | y) does not depend on how often each y is shown. Uniform designs are therefore drawn again with weights w(y) that make
    y flat above the floor, and Metropolis chains with the stationary density w(f(x)) go on from them: rare properties get
    as many distinct designs as common ones. At fixed y the chains leave designs uniform, as the prior has them. With several
    properties the uniform designs are used as they are.

    References:
        Metropolis et al., Equation of state calculations by fast computing machines, 1953, doi 10.1063/1.1699114.
    """

    uniform: int = 1_500_000  #: designs drawn uniformly from the box
    chains: int = 150_000
    steps: int = 8  #: of each chain; every state is a training design
    floor_share: float = 0.1  #: share of training designs at or below the floor (less its margin) of the property
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (self.uniform >= 1000 and self.chains >= 100 and self.steps >= 0 and 0 <= self.floor_share < 1):
            raise ConfigError(
                f"Expected uniform >= 1000, chains >= 100, steps >= 0 and 0 <= floor_share < 1, got {self.uniform}, "
                f"{self.chains}, {self.steps} and {self.floor_share}: correct data.synthetic."
            )

    def make(self, space: DesignSpace, surrogate: Surrogate) -> SyntheticRows:
        """Draw designs from a bounded space and label them; the prior of y is that of the uniform draw.

        Raises:
            TrainingError: if the surrogate finds next to no design above the property's floor.
        """
        uniform, flat = self.draw(space, surrogate)
        return SyntheticRows(*held_out(flat), uniform.y)

    def draw(self, space: DesignSpace, surrogate: Surrogate) -> tuple[DesignTable, DesignTable]:
        """The uniform designs, and those that are flat in the property; designs that depend on each other share a number."""
        generator = torch.Generator().manual_seed(self.seed)
        x = space.sample(self.uniform, generator)
        chunks = tqdm(x.split(1 << 16), desc="Labelling uniform designs", unit="chunk", leave=False, disable=None)
        prior = torch.cat([surrogate.predict_mean(rows) for rows in chunks])
        uniform = DesignTable(x, prior, torch.arange(len(x)))
        if prior.shape[1] > 1:
            return uniform, uniform
        log_weight = self._log_weights(prior[:, 0], surrogate)
        weight = log_weight(prior[:, 0])
        chosen = torch.multinomial((weight - weight.max()).exp(), self.chains, replacement=True, generator=generator)
        xs, ys = self._chains(x[chosen], prior[chosen], space, surrogate, log_weight, generator)
        # every state of a chain carries the number of the design that it started from: what is held out shares no chain
        return uniform, DesignTable(xs, ys, chosen.repeat(self.steps + 1))

    def _log_weights(self, y: Float[Tensor, " m"], surrogate: Surrogate) -> _LogWeights:
        prop = surrogate.properties[0]
        top = float(y.topk(max(20, len(y) // 20_000)).values[-1])
        lowest = float(y.min())
        low = max(prop.lowest, lowest)
        if not top > low:
            raise TrainingError(
                f"Expected a surrogate that finds designs with {prop.name} above {low:g} {prop.unit}, got almost none of "
                f"{len(y)}: train it longer, or correct the floor of the property."
            )
        edges = torch.linspace(low, top, _BINS + 1)
        counts = torch.histc(y[(y > low) & (y < top)], _BINS, low, top).clamp_min(1)
        table = -counts.log()
        first = table[:1]  # of a single lowest value, where none is below a floor
        if low > lowest:
            ratio = self.floor_share / (1 - self.floor_share)
            first = torch.tensor([ratio * _BINS / int((y <= low).sum())]).log()
        return _LogWeights(torch.cat([first, table, table[-1:]]), edges)

    def _chains(
        self,
        x: Float[Tensor, "c dx"],
        y: Float[Tensor, "c 1"],
        space: DesignSpace,
        surrogate: Surrogate,
        log_weight: _LogWeights,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "n dx"], Float[Tensor, "n 1"]]:
        weight = log_weight(y[:, 0])
        xs, ys = [x], [y]
        for _ in tqdm(range(self.steps), desc="Labelling flat in the property", unit="step", leave=False, disable=None):
            length = _STEP * (0.7 * torch.randn(len(x), 1, generator=generator)).exp()
            moved = space.moved(x, 0.5 * length * torch.randn(x.shape, generator=generator))
            label = surrogate.predict_mean(moved)
            proposed = log_weight(label[:, 0])
            accepted = torch.rand(len(x), generator=generator).log() < proposed - weight
            x, y = torch.where(accepted[:, None], moved, x), torch.where(accepted[:, None], label, y)
            weight = torch.where(accepted, proposed, weight)
            xs.append(x)
            ys.append(y)
        return torch.cat(xs), torch.cat(ys)


@dataclass(frozen=True)
class _LogWeights:
    """Logarithm of w(y), constant on bins."""

    table: Tensor
    edges: Tensor

    def __call__(self, y: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self.table[torch.bucketize(y, self.edges)]


def distilled_rows(teacher: TightBindingSurrogate, designs: SyntheticDesigns) -> DesignTable:
    """Designs that an accurate surrogate, the teacher, labels with band energies: uniform ones and those flat in its gap.

    The energies are on its own grid of k-points, once for each member of its ensemble; the gap is that of their means. Rows
    have negative ids, which no DFT row has. A network that learns the energies of a Hamiltonian instead of those of a few
    hundred DFT rows does not overfit, and is a hundred times faster than the Hamiltonian.

    References:
        Hinton, Vinyals, Dean, Distilling the knowledge in a neural network, 2015, arXiv 1503.02531.
    """
    uniform, flat = designs.draw(teacher.space, teacher)
    x, ids = torch.cat([uniform.x, flat.x]), torch.cat([uniform.ids, flat.ids])
    with torch.no_grad():
        chunks = tqdm(
            x.split(teacher.chunk_rows), desc="Labelling designs by the teacher", unit="chunk", leave=False, disable=None
        )
        energies = torch.cat([teacher.energies(rows.to(teacher.device)).cpu() for rows in chunks], dim=1)
    labels = [BandLabels(member, teacher.kpoints.cpu(), teacher.properties[0].name) for member in energies]
    return DesignTable(x, band_gap(energies.mean(dim=0)), -1 - ids, tuple(labels))


def held_out(table: DesignTable) -> tuple[DesignTable, DesignTable]:
    """Split off one row in fifty for validation, all rows of one number together."""
    held = table.ids % _HELD_OUT == 0
    if not held.any():  # of few numbers: one of them, and never the only one
        held = table.ids.unique(return_inverse=True)[1] % _HELD_OUT == 1
    return table.take((~held).nonzero()[:, 0]), table.take(held.nonzero()[:, 0])
