"""Batches as slices of tensors that live on the training device."""

from __future__ import annotations

__all__ = ["TensorBatches"]

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from matdesinne.bands import BandLabels
from matdesinne.data.table import DesignTable
from matdesinne.errors import ConfigError
from matdesinne.network import Batch
from matdesinne.symmetry import GroupElement


class TensorBatches:
    """An iterable over the rows of a table that never leaves the device: no workers, no collation of rows.

    The order of an epoch depends on the seed and the epoch only, and the place in it is kept by checkpoints, so that a
    resumed run goes on as it would have.

    Args:
        table: the rows.
        batch_size: rows of a batch; in training an incomplete last batch is dropped unless it is the only one.
        device: where the tensors live.
        seed: of the order and of the symmetry operations; ``None`` for the table's order and no augmentation.
        group: symmetry operations, of which each row gets a random one.
        part: number of this process, and of the processes that share the rows.

    Raises:
        ConfigError: if there are fewer rows than processes.
    """

    def __init__(
        self,
        table: DesignTable,
        batch_size: int,
        device: torch.device,
        seed: int | None = None,
        group: Sequence[GroupElement] = (),
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if len(table) < part[1]:
            raise ConfigError(
                f"Expected a row to train on, and one to validate on, for each of {part[1]} processes, got {len(table)}: give "
                "more rows (data.synthetic.chains for a generative model) or fewer trainer.devices."
            )
        self.x, self.y = table.x.to(device), table.y.to(device)
        self.bands = tuple(BandLabels(grid.energies.to(device), grid.kpoints.to(device), grid.name) for grid in table.bands)
        self.batch_size, self.seed, self.part, self.epoch = batch_size, seed, part, 0
        self._given = self._skipped = 0
        # where Lightning looks for set_epoch
        self.batch_sampler = SimpleNamespace(sampler=self)
        self.matrices = self.offsets = None
        self.images: list[Tensor] = []
        if seed is not None and len(group) > 1:
            self.matrices = torch.stack([element.matrix for element in group]).to(device)
            self.offsets = torch.stack([element.offset for element in group]).to(device)
            for labels in table.bands:
                images = [labels.permutation(element.reciprocal) for element in group]
                # the image of the design has at the image of k what the design has at k
                self.images.append(torch.stack([image.argsort() for image in images]).to(device))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches."""
        rows = len(self.x) // self.part[1]
        return max(rows // self.batch_size, 1) if self.seed is not None else -(-rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Go through one epoch."""
        generator = None
        order = torch.arange(len(self.x), device=self.x.device)
        if self.seed is not None:
            generator = torch.Generator(self.x.device).manual_seed(1_000_003 * self.seed + self.epoch)
            order = torch.randperm(len(self.x), generator=generator, device=self.x.device)
        rows = order[self.part[0] :: self.part[1]]
        if self.seed is not None:
            rows = rows[: len(self.x) // self.part[1]]  # as many in every process, which draw the same random numbers
        skipped, self._skipped = self._skipped, 0
        for index in range(len(self)):
            # as many batches in every process: in validation the last one of some has a row more
            last = self.seed is None and index + 1 == len(self)
            chosen = rows[index * self.batch_size : None if last else (index + 1) * self.batch_size]
            batch = self._batch(chosen, generator)  # a skipped one moves the generator, too
            self._given = index + 1
            if index >= skipped:
                yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches of the epoch were given; Lightning keeps it in a checkpoint."""
        return {"given": self._given % len(self)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Start the next epoch after the batches that were given."""
        self._skipped = state["given"]

    def _batch(self, rows: Tensor, generator: torch.Generator | None) -> Batch:
        x, y, bands = self.x[rows], self.y[rows], tuple(labels.take(rows) for labels in self.bands)
        if self.matrices is None or self.offsets is None:
            return Batch(x, y, bands)
        process, processes = self.part
        # the operations that the rows of a step would get in one process
        drawn = torch.randint(len(self.matrices), (len(rows) * processes,), generator=generator, device=x.device)
        element = drawn[process::processes]
        x = torch.baddbmm(self.offsets[element].unsqueeze(2), self.matrices[element], x.unsqueeze(2)).squeeze(2)
        moved = [
            labels._replace(energies=labels.energies.gather(2, images[element].unsqueeze(1).expand_as(labels.energies)))
            for labels, images in zip(bands, self.images, strict=True)
        ]
        return Batch(x, y, tuple(moved))
