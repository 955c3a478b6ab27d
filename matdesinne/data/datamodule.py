"""The data module that all models and surrogates share."""

from __future__ import annotations

__all__ = ["DesignDataModule"]

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Self, get_args

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.data.batches import TensorBatches
from matdesinne.data.relatives import Relative
from matdesinne.data.sources import LabelSource, Source, TableSource
from matdesinne.data.synthetic import SyntheticDesigns
from matdesinne.data.table import DesignTable, Split, check_table
from matdesinne.errors import ConfigError
from matdesinne.network import Batch
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.targets import Property

if TYPE_CHECKING:
    import pandas

Replicates = Literal["first", "mean"]

_LOGGER = logging.getLogger(__name__)
_FEW_ROWS = 25
"""Designs below which a split leaves next to nothing to test on."""


class DesignDataModule(pl.LightningDataModule):
    """Labelled designs: read, checked, without duplicates, split; batches are slices of tensors on the training device.

    All models and surrogates share it. A module that is trained sets `batch_size`.

    Args:
        source: where the table comes from: a `Source`, a pandas DataFrame with a column for each parameter and property, or
            designs and properties as tensors of shape [n, dx] and [n, dy].
        space: the parameters and their bounds.
        properties: names, units and floors.
        prototype: the unstrained atoms of a design, where designs are crystals.
        root: the folder of the source's files, where they do not come with the package.
        validation: fraction of the rows for validation; without any a training keeps the weights of its last epoch.
        test: fraction of the rows that nothing is trained or chosen on.
        split_seed: of the split.
        order_seed: of the order of training rows.
        synthetic: makes training designs of a generative model that a surrogate labels, see `with_rows`; ``None`` trains it on
            the rows of the table.
        added: tables of ``label.py`` whose designs join the training rows; validation rows stay what they are.
        tested: tables of ``label.py`` whose designs join the test rows, and no others.
        calibration: tables of ``label.py`` with designs that localization has found: `calibration_rows`.
        relatives: similar materials by name, of which surrogate=gp_bands learns, too; the one of this source is left out.
        replicates: ``"first"`` keeps the first of the rows of one design, ``"mean"`` a row with the mean of their properties.
    """

    batch_size: int = 1024

    def __init__(
        self,
        source: Source | pandas.DataFrame | tuple[Tensor, Tensor],
        space: DesignSpace,
        properties: Sequence[Property],
        prototype: Prototype | None = None,
        root: str | None = None,
        validation: float = 0.1,
        test: float = 0.1,
        split_seed: int = 0,
        order_seed: int = 0,
        synthetic: SyntheticDesigns | None = None,
        added: Sequence[str] = (),
        tested: Sequence[str] = (),
        calibration: Sequence[str] = (),
        relatives: Mapping[str, Relative] = MappingProxyType({}),
        replicates: Replicates = "first",
    ) -> None:
        super().__init__()
        if replicates not in get_args(Replicates):
            raise ConfigError(f"Expected replicates out of {list(get_args(Replicates))}, got {replicates!r}: choose one.")
        if not all(isinstance(seed, int) and 0 <= seed < 1 << 32 for seed in (split_seed, order_seed)):
            raise ConfigError(
                f"Expected split_seed and order_seed from 0 to 2**32 - 1, got {split_seed!r} and {order_seed!r}: correct them."
            )
        self.source = source if isinstance(source, Source) else TableSource(source)
        self.space, self.properties, self._prototype = space, tuple(properties), prototype
        self.root = None if root is None else Path(root)
        self.fractions = (validation, test)
        self.split_seed, self.order_seed, self.synthetic = split_seed, order_seed, synthetic
        self.added, self.tested, self.calibration = (
            tuple(LabelSource(path) for path in paths) for paths in (added, tested, calibration)
        )
        self.relatives = tuple(relatives.values())
        self.replicates, self.duplicates = replicates, 0
        self.augments = True
        self._split: Split | None = None
        self._measured: DesignTable | None = None
        self._prior: Tensor | None = None

    def __getstate__(self) -> dict[str, object]:
        """Everything but the trainer that used it last, which another process cannot have."""
        return {**self.__dict__, "trainer": None}

    @property
    def split(self) -> Split:
        """Training, validation and test rows of the table, read once.

        Raises:
            DatasetError: if the table cannot be read or breaks its declaration.
        """
        if self._split is None:
            table = check_table(
                self.source.load(self.space, self.properties, self.root), self.space, self.properties, self.source.name
            )
            self._split = self._split_rows(table)
        return self._split

    @cached_property
    def prototype(self) -> Prototype | None:
        """The atoms of a design; where the source has relaxed ones, they respond to strain as those of the training rows do."""
        known = {} if self._prototype is None else self.source.relaxed_positions()
        rows = [row for row, number in enumerate(self.split.train.ids.tolist()) if number in known] if known else []
        if self._prototype is None or not rows:
            return self._prototype
        train = self.split.train.take(torch.tensor(rows))
        positions = torch.tensor([known[number] for number in train.ids.tolist()], dtype=torch.float64)
        return self._prototype.relaxed(self.space, train.x, positions.unflatten(1, (-1, 3)))

    @property
    def held_out(self) -> DesignTable:
        """Validation rows or, where there are none, test rows: for metrics that choose nothing."""
        return self.split.validation if len(self.split.validation) else self.split.test

    def _split_rows(self, table: DesignTable) -> Split:
        """Split the rows, one for each design, and add those of other tables to the training rows."""
        unique = table.averaged() if self.replicates == "mean" else table.without_duplicates()
        self.duplicates = len(table) - len(unique)
        self._measured = table if self.duplicates and self.replicates == "mean" else None
        self._say_of(table, unique)
        split = unique.split(*self.fractions, self.split_seed)
        if self.tested:
            rows, dropped = self._rows_of(self.tested, unique)
            split, self.duplicates = replace(split, test=split.test.joined(rows)), self.duplicates + dropped
            unique = split.train.joined(split.validation).joined(split.test)
        if self.added:
            rows, dropped = self._rows_of(self.added, unique)
            split, self.duplicates = replace(split, train=split.train.joined(rows)), self.duplicates + dropped
        return split

    def _rows_of(self, sources: Sequence[LabelSource], before: DesignTable) -> tuple[DesignTable, int]:
        """The rows of further tables, none whose design is among those before, and how many that and duplicates drop."""
        every = before
        for source in sources:
            more = check_table(source.load(self.space, self.properties), self.space, self.properties, source.name)
            every = every.joined(replace(more, ids=more.ids + min(int(every.ids.min()), 0)))  # their numbers go on downwards
        rows = every.without_duplicates().without(before)
        return rows, len(every) - len(before) - len(rows)

    @property
    def calibration_rows(self) -> DesignTable:
        """Rows on which the spread of a surrogate is calibrated: of tables for this purpose, or else the validation rows."""
        split = self.split
        if self.calibration:
            return self._rows_of(self.calibration, split.train.joined(split.validation).joined(split.test))[0]
        return split.validation.without(split.train)

    def measurements(self, part: DesignTable) -> DesignTable:
        """The rows behind those of the table: where these are means of replicates, each measurement of its own."""
        _ = self.split  # reads the table
        return part if self._measured is None else self._measured.same_designs(part)

    def _say_of(self, table: DesignTable, unique: DesignTable) -> None:
        if self.duplicates and self.replicates == "mean":
            errors = zip(self.properties, table.replicate_std().tolist(), strict=True)
            noise = ", ".join(f"{prop.name} {std:.2g}{prop.suffix}" for prop, std in errors)
            _LOGGER.warning(
                f"{self.source.name} has {len(table)} rows of {len(unique)} designs: repeated measurements are averaged; their "
                f"standard deviation: {noise}."
            )
        if len(unique) < _FEW_ROWS and any(self.fractions):
            _LOGGER.warning(
                f"{self.source.name} has {len(unique)} designs, fewer than {_FEW_ROWS}: errors on the validation and test rows "
                "say little, and the spread is not calibrated; measure more designs."
            )

    def with_rows(self, train: DesignTable, validation: DesignTable, prior: Float[Tensor, "m dy"] | None = None) -> Self:
        """The same data, and test rows, with other training and validation rows, such as designs that a surrogate has labelled.

        `prior` has the properties of designs drawn from the prior over designs, where the training rows do not follow it; rows
        with a prior of their own are not augmented by symmetry operations.
        """
        _ = self.prototype  # follows from the rows of the table
        other = copy.copy(self)
        other._split = Split(train, validation, self.split.test)
        other._prior, other.augments = prior, prior is None
        return other

    def with_all_rows(self) -> Self:
        """Every row, test rows too, in training, in the order of the source: for a surrogate that only evaluates.

        It does not depend on the split; one row in ten says which epoch was the best.
        """
        split = self.split
        every = split.train.joined(split.validation).joined(split.test)
        every = every.take(every.ids.argsort())
        other = self.with_rows(every, every.take(torch.arange(0, len(every), 10)))
        other.split_seed = other.order_seed = 0
        return other

    @property
    def training_rows(self) -> DesignTable:
        """The rows to train on."""
        return self.split.train

    @property
    def prior(self) -> Float[Tensor, "m dy"]:
        """Properties of designs drawn from the prior over designs."""
        return self.split.train.y if self._prior is None else self._prior

    def training_batch(self) -> Batch:
        """All training rows at once, to learn scales from."""
        rows, relatives = self.training_rows, self.relative_rows()
        return Batch(rows.x, rows.y, rows.bands, tuple(Batch(other.x, other.y, other.bands) for other in relatives))

    def relative_rows(self) -> list[DesignTable]:
        """Rows of similar materials, as designs of this space, but for those at the strain of a validation or test row.

        Raises:
            ConfigError: if one has other parameters.
            DatasetError: if one lacks a property or has other k-points.
        """
        held_out = torch.cat([self.split.validation.x, self.split.test.x])
        others = [relative for relative in self.relatives if relative.source.name != self.source.name]
        found = [relative.rows(self.space, self.properties, held_out) for relative in others]
        for rows in found:
            self.split.train.take(torch.arange(0)).joined(rows)  # checks the k-points
        return found

    def train_dataloader(self) -> TensorBatches:
        """Shuffled batches; symmetry operations augment the table's rows."""
        return self._batches(self.split.train, self.order_seed, self.space.group() if self.augments else ())

    def val_dataloader(self) -> TensorBatches:
        """Validation rows in order."""
        return self._batches(self.split.validation, None, ())

    def _batches(self, table: DesignTable, seed: int | None, group: Sequence) -> TensorBatches:
        trainer = self.trainer
        assert trainer is not None  # Lightning sets it before it asks for batches
        part = (trainer.global_rank, trainer.world_size)
        return TensorBatches(table, self.batch_size, trainer.strategy.root_device, seed, group, part)
