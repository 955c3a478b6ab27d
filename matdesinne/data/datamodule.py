"""The data module that all models and surrogates share."""

from __future__ import annotations

__all__ = ["DesignData", "SurrogateLabels"]

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from matdesinne.data.batches import TensorBatches
from matdesinne.data.sources import Source
from matdesinne.data.table import DesignTable, Split, check_table
from matdesinne.errors import ConfigError
from matdesinne.learning import Batch, DesignModule
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property


@dataclass(frozen=True)
class SurrogateLabels:
    """How a generative model's training designs are made: drawn uniformly from the box, labelled by the surrogate.

    p(x | y) does not depend on how often each y is shown, so the labelled designs are thinned to a nearly flat
    distribution of y: rare properties get as much of the model as common ones.

    Args:
        pool: designs to draw and label.
        count: designs to keep for training.
        flatness: 0 keeps the distribution of y, 1 makes it flat between `lower` and the largest label.
        lower: below this value of the first property (its unit) the labels share one weight; ``None``: no such value.
        seed: seed of the draw.
    """

    pool: int = 2_000_000
    count: int = 1_000_000
    flatness: float = 1.0
    lower: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (1000 <= self.count <= self.pool and 0 <= self.flatness <= 1):
            raise ConfigError(
                f"Expected 1000 <= count <= pool and 0 <= flatness <= 1, got count {self.count}, pool {self.pool}, flatness "
                f"{self.flatness}: correct data.labels."
            )

    def make(self, space: DesignSpace, surrogate: Surrogate) -> tuple[DesignTable, Float[Tensor, "m dy"]]:
        """Draw, label and thin.

        Returns:
            The designs to train on, and property values of the unthinned draw (the prior of y).
        """
        generator = torch.Generator().manual_seed(self.seed)
        x = space.sample(self.pool, generator)
        chunks = tqdm(x.split(1 << 16), desc="Labelling designs with the surrogate", unit="chunk", leave=False)
        y = torch.cat([surrogate.predict_many(rows)[0] for rows in chunks])
        kept = self._thin(y, generator)
        return DesignTable(x[kept], y[kept], kept), y

    def _thin(self, y: Float[Tensor, "m dy"], generator: torch.Generator) -> Tensor:
        """Rows to keep: without repetition as far as the pool allows."""
        if self.flatness == 0 or y.shape[1] != 1:
            return torch.arange(self.count)
        value = y[:, 0].contiguous()
        low = float(value.min()) if self.lower is None else max(self.lower, float(value.min()))
        edges = torch.linspace(low, float(value.max()) + 1e-6, 65)[1:-1]
        bin_of = torch.bucketize(value, edges)
        share = torch.bincount(bin_of, minlength=64).clamp_min(1).float() / len(value)
        weight = share[bin_of] ** -self.flatness
        # each design is kept floor(expected) or ceil(expected) times
        expected = weight * (self.count / weight.sum())
        copies = (expected + torch.rand(len(value), generator=generator)).floor().long()
        return torch.repeat_interleave(torch.arange(len(value)), copies)


class DesignData(pl.LightningDataModule):
    """Labelled designs: read, checked, without duplicates, split; batches are slices of tensors on the device.

    Args:
        source: where the table comes from.
        space: names, units, bounds and symmetries of the parameters.
        properties: names, units and floors of the properties.
        prototype: the atoms of a design, where designs are crystals.
        validation: fraction of the rows for validation.
        test: fraction of the rows that nothing is trained or chosen on.
        split_seed: seed of the split.
        order_seed: seed of the order of training rows.
        labels: how to make a generative model's training designs; ``None`` trains it on the table's rows.
    """

    def __init__(
        self,
        source: Source,
        space: DesignSpace,
        properties: Sequence[Property],
        prototype: Prototype | None = None,
        validation: float = 0.1,
        test: float = 0.1,
        split_seed: int = 0,
        order_seed: int = 0,
        labels: SurrogateLabels | None = None,
    ) -> None:
        super().__init__()
        self.source, self.space, self.properties, self.prototype = source, space, tuple(properties), prototype
        self.fractions = (validation, test)
        self.split_seed, self.order_seed, self.labels = split_seed, order_seed, labels
        self.duplicates = 0
        self._split: Split | None = None
        self._labelled: tuple[DesignTable, DesignTable, Tensor] | None = None

    @property
    def split(self) -> Split:
        """Training, validation and test rows of the table, read once.

        Raises:
            DatasetError: if the table cannot be read or breaks its declaration.
        """
        if self._split is None:
            table = check_table(
                self.source.load(self.space, self.properties), self.space, self.properties, self.source.describe()
            )
            unique = table.without_duplicates()
            self.duplicates = len(table) - len(unique)
            self._split = unique.split(*self.fractions, self.split_seed)
        return self._split

    def labelled_by(self, surrogate: Surrogate) -> Self:
        """The same data, with training and validation rows drawn from the box and labelled by a surrogate.

        Returns this module unchanged where `labels` is ``None``.
        """
        if self.labels is None:
            return self
        table, prior = self.labels.make(self.space, surrogate)
        order = torch.randperm(len(table), generator=torch.Generator().manual_seed(self.labels.seed))
        held = max(len(table) // 50, 1)
        labelled = copy.copy(self)
        labelled._labelled = (table.take(order[held:]), table.take(order[:held]), prior)
        return labelled

    def with_all_rows(self) -> Self:
        """The same data with every row, test rows too, in training: for a judge that nothing is chosen by."""
        split = self.split
        every = split.train.joined(split.validation).joined(split.test)
        whole = copy.copy(self)
        whole._split = Split(every, split.validation, split.test)
        return whole

    @property
    def training_rows(self) -> DesignTable:
        """What is trained on."""
        return self.split.train if self._labelled is None else self._labelled[0]

    @property
    def prior(self) -> Float[Tensor, "m dy"]:
        """Properties of designs drawn from the prior over designs."""
        return self.split.train.y if self._labelled is None else self._labelled[2]

    def training_batch(self) -> Batch:
        """All training rows at once, to learn scales from."""
        rows = self.training_rows
        return Batch(rows.x, rows.y, None if rows.bands is None else rows.bands.energies)

    def train_dataloader(self) -> TensorBatches:
        """Shuffled batches; symmetry operations augment the table's rows."""
        group = self.space.group() if self._labelled is None else ()
        return self._batches(self.training_rows, self.order_seed, group)

    def val_dataloader(self) -> TensorBatches:
        """Validation rows in order."""
        return self._batches(self.split.validation if self._labelled is None else self._labelled[1], None, ())

    def _batches(self, table: DesignTable, seed: int | None, group: Sequence) -> TensorBatches:
        trainer = self.trainer
        assert trainer is not None  # Lightning sets it before it asks for batches
        module = trainer.lightning_module
        assert isinstance(module, DesignModule)
        part = (trainer.global_rank, trainer.world_size)
        return TensorBatches(table, module.optimization.batch_size, trainer.strategy.root_device, seed, group, part)
