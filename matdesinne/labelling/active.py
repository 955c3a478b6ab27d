"""Active learning: label the designs whose prediction is most uncertain, train the surrogate again, and measure its error."""

from __future__ import annotations

__all__ = ["ActiveLearning", "Round", "choose"]

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.utils import instantiate
from jaxtyping import Float, Int
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.errors import ConfigError
from matdesinne.labelling.points import Points
from matdesinne.labelling.run import label_points
from matdesinne.localization import Newton
from matdesinne.models.base import InverseModel
from matdesinne.oracles.base import Oracle
from matdesinne.selection import All, InsideSpace, Selection, Tolerance
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target
from matdesinne.training.runs import trained_surrogate

_LOGGER = logging.getLogger(__name__)
_ACCEPTED: Selection = All([InsideSpace(), Tolerance(0.01)])
"""Localized designs farther than this from their target, in the unit of the property, are not labelled."""


@dataclass(frozen=True)
class Round:
    """Errors of designs that the surrogate of one round has localized, measured by their labels.

    Args:
        training_rows: number of rows that the surrogate was trained on.
        fresh: distance of the label to each target for designs that are drawn at random and never trained on, NaN where there
            is no label. Every round localizes the same samples with its own surrogate.
        chosen: the same for the designs that join the training rows after this round; none in the last round.
        failed: number of calculations that failed.
    """

    training_rows: int
    fresh: Float[Tensor, "t n"]
    chosen: Float[Tensor, "t m"]
    failed: int


def choose(candidates: Candidates, count: int, known: Float[Tensor, "m dx"]) -> Int[Tensor, " k"]:
    r"""Chooses designs to label: uncertain ones that differ from each other and from the labelled ones.

    It takes one design after another, each time that with the largest :math:`\sigma(x) \min_{x'} |u(x) - u(x')|`: the spread of
    the prediction times the distance to the nearest design that is labelled or taken, symmetry images included, where u is the
    design in half-widths of the box.

    References:
        Settles, Active Learning Literature Survey, University of Wisconsin-Madison 1648 (2009), section 3.6 (density and
        diversity). Sener and Savarese, ICLR 2018, arXiv 1708.00489 (farthest points).

    Returns:
        At most `count` row numbers.
    """
    space = candidates.space
    unit = space.to_unit(candidates.designs)
    distance = torch.cdist(unit, _images(space, known)).amin(dim=1) if len(known) else torch.ones(len(unit))
    taken: list[int] = []
    while len(taken) < min(count, len(unit)):
        row = int((candidates.std[:, 0] * distance).argmax())
        taken.append(row)
        distance = torch.minimum(distance, torch.cdist(unit, _images(space, candidates.designs[row : row + 1])).amin(dim=1))
        distance[taken] = 0.0
    return torch.tensor(taken, dtype=torch.long)


def _images(space: DesignSpace, designs: Float[Tensor, "m dx"]) -> Float[Tensor, "k dx"]:
    return space.to_unit(space.images(designs).flatten(0, 1))


@dataclass(frozen=True)
class ActiveLearning:
    """Rounds of localization, labelling and training.

    The labels are in subfolders of `folder`: ``fresh_0``, ``round_1``, ``fresh_1``, ... each with its ``labels.parquet``.
    A run that was interrupted continues from them.

    Args:
        training: a configuration of ``train.py``; its ``data`` and ``surrogate`` are used.
        model: the generative model, the same in every round; the newest surrogate localizes its samples.
        oracle: computes the labels.
        executor: returns a new executor, which runs the calculations of one table of designs.
        folder: of the labels.
        targets: values or intervals of the property in its unit.
        num_samples: number of designs to sample for each target and round.
        per_round: number of labels that join the training rows in a round, divided over the targets.
        fresh: number of labels in each round, and after the last one, that measure the error, divided over the targets.
        seed: seed of the samples.
    """

    training: DictConfig
    model: InverseModel
    oracle: Oracle
    executor: Callable[[], Executor]
    folder: Path
    targets: Sequence[object]
    num_samples: int
    per_round: int
    fresh: int
    seed: int

    def __post_init__(self) -> None:
        """Check the numbers, the data set, the design space and the oracle."""
        least = len(self.targets)
        if not least or min(self.per_round, self.fresh) < least or self.num_samples < self.per_round:
            raise ConfigError(
                f"Expected targets, per_round and fresh of at least one for each, and num_samples of at least per_round, got "
                f"{list(self.targets)}, {self.per_round}, {self.fresh}, {self.num_samples}: correct task=active's numbers."
            )
        if "added" not in self.training.data:
            raise ConfigError("Expected a data set that labels can join, got one without data.added: take mos2_gpaw or csv.")
        if not self.model.space.bounded:
            raise ConfigError("Expected a design space with bounds for task=active, got an open one: bound every parameter.")
        self.oracle.check_column(self.model.properties[0].name)

    def run(self, rounds: int) -> list[Round]:
        """Run the rounds; the last entry holds the error after the last training.

        Raises:
            ConfigError: if model and data have different parameters or properties, or the oracle cannot work here.
        """
        if rounds < 1:
            raise ConfigError(f"Expected at least 1 round, got {rounds}: correct active.rounds.")
        targets = [Target.parse(target, self.model.properties) for target in self.targets]
        fresh = self._samples(targets, -(-self.fresh // len(targets)), 0)
        return [self._round(number, number == rounds, targets, fresh) for number in range(rounds + 1)]

    def _round(self, number: int, last: bool, targets: Sequence[Target], fresh: Sequence[Tensor]) -> Round:
        surrogate, data = self._train(number)
        fresh_errors, failed = self._measure(self._localize(surrogate, fresh, targets), self.folder / f"fresh_{number}")
        rows = len(data.split.train)
        if last:
            return Round(rows, fresh_errors, fresh_errors[:, :0], failed)
        pool = self._localize(surrogate, self._samples(targets, self.num_samples, number + 1), targets)
        known, chosen = data.split.train.x, []
        for candidates in pool:
            on_target = candidates.take(_ACCEPTED.mask(candidates))
            chosen.append(on_target.take(choose(on_target, -(-self.per_round // len(targets)), known)))
            known = torch.cat([known, chosen[-1].designs])
        chosen_errors, more = self._measure(chosen, self.folder / f"round_{number + 1}")
        return Round(rows, fresh_errors, chosen_errors, failed + more)

    def _train(self, number: int) -> tuple[Surrogate, DesignDataModule]:
        """Trains the surrogate on the rows of the configuration and those of the rounds so far."""
        rounds = [str(self.folder / f"round_{before}" / "labels.parquet") for before in range(1, number + 1)]
        config = OmegaConf.merge(self.training, {"data": {"added": [*self.training.data.added, *rounds]}})
        assert isinstance(config, DictConfig)
        data: DesignDataModule = instantiate(config.data, _convert_="all")
        if data.space != self.model.space or data.properties != self.model.properties:
            raise ConfigError(
                "Expected a model and data of the same parameters and property, got different ones: change active.run."
            )
        _LOGGER.info("Round %d: %d training rows", number, len(data.split.train))
        return trained_surrogate(config, data), data

    def _samples(self, targets: Sequence[Target], count: int, stream: int) -> list[Float[Tensor, "n dx"]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + stream)
        return [self.model.sample_target(target, count, generator)[0] for target in targets]

    @staticmethod
    def _localize(surrogate: Surrogate, samples: Sequence[Tensor], targets: Sequence[Target]) -> list[Candidates]:
        """Moves every sample towards its target; no row is dropped."""
        localized = []
        for designs, target in zip(samples, targets, strict=True):
            mean, std = surrogate.predict_many(designs)
            start = Candidates(surrogate.space, surrogate.properties, designs, target, mean, std, "sampled")
            localized.append(Newton().localize(start, surrogate))
        return localized

    def _measure(self, tables: Sequence[Candidates], folder: Path) -> tuple[Float[Tensor, "t n"], int]:
        """Returns distances of labels to targets and the number of failures.

        A distance is NaN for a design that was not localized or whose calculation failed.
        """
        masks = [_ACCEPTED.mask(table) for table in tables]
        x = torch.cat([table.designs[mask] for table, mask in zip(tables, masks, strict=True)]).double()
        run = label_points(self.oracle, Points(x, torch.arange(len(x))), self.executor(), folder)
        labels = run.values(self.model.properties[0].name).split([int(mask.sum()) for mask in masks])
        errors = torch.full((len(tables), max(map(len, tables))), torch.nan, dtype=torch.float64)
        for row, table, mask, values in zip(errors, tables, masks, labels, strict=True):
            row[: len(table)][mask] = table.target.residual(values.unsqueeze(1)).abs()[:, 0]
        return errors, len(run.failed)
