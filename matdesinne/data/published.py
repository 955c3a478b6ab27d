"""The rows of the published set as the paper's code splits them."""

from __future__ import annotations

__all__ = ["PublishedSplit"]

import math

import numpy as np
import torch

from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.table import DesignTable, Split


class PublishedSplit(DesignDataModule):
    """A `DesignDataModule` with the split of scikit-learn's ``train_test_split(test_size=test, random_state=split_seed)``.

    All rows take part, equal designs too, and there are no validation rows: a training ends with its last epoch.

    References:
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x; its public repository, commit 2c7ab5e: ``test=0.2``, ``split_seed=0``.
    """

    def _split_rows(self, table: DesignTable) -> Split:
        order = torch.from_numpy(np.random.RandomState(self.split_seed).permutation(len(table)))
        held = math.ceil(len(table) * self.fractions[1])
        return Split(table.take(order[held:]), table.take(order[:0]), table.take(order[:held]))
