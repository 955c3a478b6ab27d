"""The data module that all models and surrogates share."""

from __future__ import annotations

__all__ = ["DesignDataModule"]

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.data.batches import TensorBatches
from matdesinne.data.sources import LabelSource, Source
from matdesinne.data.synthetic import SyntheticDesigns
from matdesinne.data.table import DesignTable, Split, check_table
from matdesinne.errors import ConfigError
from matdesinne.network import Batch
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.tight_binding.surrogate import TightBindingSurrogate
from matdesinne.targets import Property
from matdesinne.training.base import LightningTask
from matdesinne.training.distillation import distilled_rows

_HELD_OUT = 50
"""One in so many labelled designs is for validation."""


class DesignDataModule(pl.LightningDataModule):
    """Labelled designs: read, checked, without duplicates, split; batches are slices of tensors on the device.

    Args:
        source: where the table comes from.
        space: names, units, bounds and symmetries of the parameters.
        properties: names, units and floors of the properties.
        prototype: the atoms of a design, where designs are crystals.
        root: the folder of the source's files, where they do not come with the package.
        validation: fraction of the rows for validation.
        test: fraction of the rows that nothing is trained or chosen on.
        split_seed: seed of the split.
        order_seed: seed of the order of training rows.
        synthetic: how to make a generative model's training designs; ``None`` trains it on the table's rows.
        added: tables of ``label.py`` whose designs join the training rows; validation and test rows stay what they are.
    """

    def __init__(
        self,
        source: Source,
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
    ) -> None:
        super().__init__()
        if not all(isinstance(seed, int) and 0 <= seed < 1 << 32 for seed in (split_seed, order_seed)):
            raise ConfigError(
                f"Expected split_seed and order_seed from 0 to 2**32 - 1, got {split_seed!r} and {order_seed!r}: correct them."
            )
        self.source, self.space, self.properties, self.prototype = source, space, tuple(properties), prototype
        self.root = None if root is None else Path(root)
        self.fractions = (validation, test)
        self.split_seed, self.order_seed, self.synthetic = split_seed, order_seed, synthetic
        self.added = tuple(LabelSource(path) for path in added)
        self.duplicates = 0
        self._split: Split | None = None
        self._labeller: Surrogate | None = None
        self._labelled: tuple[DesignTable, DesignTable, Tensor] | None = None

    def __getstate__(self) -> dict[str, object]:
        """Everything but what another process cannot have: the trainer that used it last, a surrogate that has labelled."""
        labeller = self._labeller if self._labelled is None else None
        return {**self.__dict__, "trainer": None, "_labeller": labeller}

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
            unique = table.without_duplicates()
            self.duplicates = len(table) - len(unique)
            split = unique.split(*self.fractions, self.split_seed)
            self._split = replace(split, train=split.train.joined(self._added_rows(unique))) if self.added else split
        return self._split

    def _added_rows(self, unique: DesignTable) -> DesignTable:
        """The rows of the added tables; none whose design is among those of the table."""
        every = unique
        for source in self.added:
            more = check_table(source.load(self.space, self.properties), self.space, self.properties, source.name)
            every = every.joined(replace(more, ids=more.ids + min(int(every.ids.min()), 0)))  # their numbers go on downwards
        rows = every.without_duplicates().without(unique)  # of equal designs the first one stays
        self.duplicates += len(every) - len(unique) - len(rows)
        return rows

    def labelled_by(self, surrogate: Surrogate) -> Self:
        """The same data, with training and validation rows drawn from the box and labelled by a surrogate.

        They are made when they are first asked for. Returns this module unchanged where `synthetic` is ``None``.
        """
        if self.synthetic is None:
            return self
        labelled = copy.copy(self)
        labelled._labeller, labelled._labelled = surrogate, None
        return labelled

    @property
    def labelled(self) -> tuple[DesignTable, DesignTable, Float[Tensor, "m dy"]] | None:
        """Training and validation designs with a surrogate's labels, and its prior of y; ``None`` without a surrogate."""
        if self._labelled is None and self._labeller is not None:
            assert self.synthetic is not None  # labelled_by has checked
            table, prior = self.synthetic.make(self.space, self._labeller)
            held = table.ids % _HELD_OUT == 0
            if not held.any():  # of few starts: one of them, and never the only one
                held = table.ids.unique(return_inverse=True)[1] % _HELD_OUT == 1
            self._labelled = (table.take((~held).nonzero()[:, 0]), table.take(held.nonzero()[:, 0]), prior)
        return self._labelled

    def taught_by(self, teacher: TightBindingSurrogate, designs: int, seed: int) -> Self:
        """The same data with designs that a teacher has labelled for training and validation; test rows stay.

        Args:
            teacher: trained on these data.
            designs: number of rows; one in fifty is for validation.
            seed: of their draw.
        """
        rows = distilled_rows(teacher, designs, seed)
        held = torch.arange(designs) % _HELD_OUT == 0
        distilled = copy.copy(self)
        distilled._split = Split(rows.take((~held).nonzero()[:, 0]), rows.take(held.nonzero()[:, 0]), self.split.test)
        distilled._labeller = distilled._labelled = None
        return distilled

    def with_all_rows(self) -> Self:
        """Every row, test rows too, in training, in the order of the source: for a judge that nothing is chosen by.

        It does not depend on the split; one row in ten says which epoch was the best.
        """
        split = self.split
        every = split.train.joined(split.validation).joined(split.test)
        every = every.take(every.ids.argsort())
        whole = copy.copy(self)
        whole._split = Split(every, every.take(torch.arange(0, len(every), 10)), split.test)
        whole.split_seed = whole.order_seed = 0
        whole._labeller = whole._labelled = None
        return whole

    @property
    def training_rows(self) -> DesignTable:
        """What is trained on."""
        return self.split.train if self.labelled is None else self.labelled[0]

    @property
    def prior(self) -> Float[Tensor, "m dy"]:
        """Properties of designs drawn from the prior over designs."""
        return self.split.train.y if self.labelled is None else self.labelled[2]

    def training_batch(self) -> Batch:
        """All training rows at once, to learn scales from."""
        rows = self.training_rows
        return Batch(rows.x, rows.y, rows.bands)

    def train_dataloader(self) -> TensorBatches:
        """Shuffled batches; symmetry operations augment the table's rows."""
        group = self.space.group() if self.labelled is None else ()
        return self._batches(self.training_rows, self.order_seed, group)

    def val_dataloader(self) -> TensorBatches:
        """Validation rows in order."""
        return self._batches(self.split.validation if self.labelled is None else self.labelled[1], None, ())

    def _batches(self, table: DesignTable, seed: int | None, group: Sequence) -> TensorBatches:
        trainer = self.trainer
        assert trainer is not None  # Lightning sets it before it asks for batches
        task = trainer.lightning_module
        assert isinstance(task, LightningTask)
        part = (trainer.global_rank, trainer.world_size)
        return TensorBatches(table, task.module.optimization.batch_size, trainer.strategy.root_device, seed, group, part)
