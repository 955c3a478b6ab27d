"""Active learning: label what the surrogate is least sure of, train it again, and see what that did to the error."""

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
from matdesinne.training.runs import cached_surrogate

_LOGGER = logging.getLogger(__name__)
_ACCEPTED = 0.01
"""A localized design farther than this from its target is not labelled, in the unit of the property."""


@dataclass(frozen=True)
class Round:
    """Labels of designs that one surrogate has localized.

    Args:
        training_rows: what the surrogate was trained on.
        fresh: distance to the target of designs that no one chose, NaN where there is no label, shape [targets, n]; the same
            samples in every round, each localized by the round's own surrogate. They are in no training.
        chosen: the same for the designs that join the training rows after this round; none in the last one.
        failed: calculations that failed.
    """

    training_rows: int
    fresh: Float[Tensor, "t n"]
    chosen: Float[Tensor, "t m"]
    failed: int


def choose(candidates: Candidates, count: int, known: Float[Tensor, "m dx"]) -> Int[Tensor, " k"]:
    r"""Designs that are worth a label: unsure ones that differ from each other and from those with a label.

    One by one the design with the largest :math:`\sigma(x) \min_{x'} |u(x) - u(x')|` is taken: the spread of the prediction
    times the distance to the nearest labelled or taken design in coordinates u scaled by the box, symmetry images included.

    References:
        Settles, Active Learning Literature Survey, University of Wisconsin-Madison 1648 (2009), section 3.6 (density and
        diversity). Sener and Savarese, ICLR 2018, arXiv 1708.00489 (farthest points).

    Args:
        candidates: to choose from.
        count: how many.
        known: designs that have labels, in physical units.

    Returns:
        Row numbers, at most `count`.
    """
    space = candidates.space
    unit = _scaled(space, candidates.designs)
    distance = torch.cdist(unit, _images(space, known)).amin(dim=1) if len(known) else torch.ones(len(unit))
    taken: list[int] = []
    while len(taken) < min(count, len(unit)):
        row = int((candidates.std[:, 0] * distance).argmax())
        taken.append(row)
        distance = torch.minimum(distance, torch.cdist(unit, _images(space, candidates.designs[row : row + 1])).amin(dim=1))
        distance[taken] = 0.0
    return torch.tensor(taken, dtype=torch.long)


def _images(space: DesignSpace, designs: Float[Tensor, "m dx"]) -> Float[Tensor, "k dx"]:
    return _scaled(space, space.images(designs).flatten(0, 1))


def _scaled(space: DesignSpace, designs: Float[Tensor, "m dx"]) -> Float[Tensor, "m dx"]:
    """In half-widths of the box."""
    return 2 * (designs - space.lower) / (space.upper - space.lower)


@dataclass(frozen=True)
class ActiveLearning:
    """Rounds of localizing, labelling and training.

    Everything is kept in folders of `folder`: ``fresh_0``, ``round_1``, ``fresh_1``, ... each with its ``labels.parquet``.
    A run that was ended goes on there.

    Args:
        training: a configuration of ``train.py``; its ``data`` and ``surrogate`` are used.
        model: samples the designs, the same in every round; the newest surrogate localizes them.
        oracle: labels them.
        executor: makes what runs the calculations.
        folder: of the labels.
        targets: values or intervals of the property in its unit.
        num_samples: designs to sample for each target and round.
        per_round: labels that join the training rows in a round, divided over the targets.
        fresh: labels in each round, and after the last one, that measure the error, divided over the targets.
        seed: of the samples.
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
        """Check that it can work."""
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
        """Go through the rounds; the last entry is the error after the last training.

        Raises:
            ConfigError: if the model is of other designs than the data, or the oracle cannot work here.
        """
        if rounds < 1:
            raise ConfigError(f"Expected at least 1 round, got {rounds}: correct active.rounds.")
        wanted = [Target.parse(target, self.model.properties) for target in self.targets]
        starts = self._samples(wanted, -(-self.fresh // len(wanted)), 0)
        return [self._round(number, number == rounds, wanted, starts) for number in range(rounds + 1)]

    def _round(self, number: int, last: bool, wanted: Sequence[Target], starts: Sequence[Tensor]) -> Round:
        surrogate, data = self._trained(number)
        fresh, failed = self._measured(self._localized(surrogate, starts, wanted), self.folder / f"fresh_{number}")
        rows = len(data.split.train)
        if last:
            return Round(rows, fresh, fresh[:, :0], failed)
        pool = self._localized(surrogate, self._samples(wanted, self.num_samples, number + 1), wanted)
        known, chosen = data.split.train.x, []
        for candidates in pool:
            good = candidates.take(_rule().mask(candidates))
            chosen.append(good.take(choose(good, -(-self.per_round // len(wanted)), known)))
            known = torch.cat([known, chosen[-1].designs])
        errors, more = self._measured(chosen, self.folder / f"round_{number + 1}")
        return Round(rows, fresh, errors, failed + more)

    def _trained(self, number: int) -> tuple[Surrogate, DesignDataModule]:
        """The surrogate of the rows of the configuration and of those of the rounds so far."""
        rounds = [str(self.folder / f"round_{before}" / "labels.parquet") for before in range(1, number + 1)]
        config = OmegaConf.merge(self.training, {"data": {"added": [*self.training.data.added, *rounds]}})
        assert isinstance(config, DictConfig)
        data: DesignDataModule = instantiate(config.data, _convert_="all")
        if data.space != self.model.space or data.properties != self.model.properties:
            raise ConfigError(
                "Expected a model and data of the same designs and property, got different ones: change active.run."
            )
        _LOGGER.info("Round %d: %d training rows", number, len(data.split.train))
        return cached_surrogate(config, data, config.seed, Path(config.surrogates_folder)), data

    def _samples(self, wanted: Sequence[Target], count: int, stream: int) -> list[Float[Tensor, "n dx"]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + stream)
        return [self.model.sample_target(target, count, generator)[0] for target in wanted]

    @staticmethod
    def _localized(surrogate: Surrogate, samples: Sequence[Tensor], wanted: Sequence[Target]) -> list[Candidates]:
        """Every sample on its target, as far as it gets there; no row is dropped."""
        moved = []
        for designs, target in zip(samples, wanted, strict=True):
            mean, std = surrogate.predict_many(designs)
            start = Candidates(surrogate.space, surrogate.properties, designs, target, mean, std, "sampled")
            moved.append(Newton().localize(start, surrogate))
        return moved

    def _measured(self, tables: Sequence[Candidates], folder: Path) -> tuple[Float[Tensor, "t n"], int]:
        """Distance of the labels to the targets, NaN for designs that were not localized or whose calculation failed."""
        kept = [_rule().mask(table) for table in tables]
        x = torch.cat([table.designs[mask] for table, mask in zip(tables, kept, strict=True)]).double()
        run = label_points(self.oracle, Points(x, torch.arange(len(x))), self.executor(), folder)
        labels = run.values(self.model.properties[0].name).split([int(mask.sum()) for mask in kept])
        errors = torch.full((len(tables), max(map(len, tables))), torch.nan, dtype=torch.float64)
        for line, table, mask, values in zip(errors, tables, kept, labels, strict=True):
            line[: len(table)][mask] = table.target.residual(values.unsqueeze(1)).abs()[:, 0]
        return errors, len(run.failed)


def _rule() -> Selection:
    return All([InsideSpace(), Tolerance(_ACCEPTED)])
