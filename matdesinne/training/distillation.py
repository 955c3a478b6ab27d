"""Distillation: training rows for a fast surrogate on bands that an accurate surrogate labels, on its grid of k-points."""

from __future__ import annotations

__all__ = ["distilled_rows"]

import torch
from tqdm import tqdm

from matdesinne.bands import BandLabels, band_gap
from matdesinne.data.table import DesignTable
from matdesinne.surrogates.tight_binding.surrogate import TightBindingSurrogate

_CHUNK_ROWS = 1 << 10


def distilled_rows(teacher: TightBindingSurrogate, designs: int, seed: int) -> DesignTable:
    """Draw designs uniformly from the box and label them with the band energies of an accurate surrogate, the teacher.

    A network that learns the energies of a Hamiltonian instead of those of a few hundred DFT rows does not overfit, and is a
    hundred times faster than the Hamiltonian (knowledge distillation: Hinton, Vinyals, Dean 2015, arXiv 1503.02531).

    Args:
        teacher: gives the energies, the mean over its ensemble, on its own grid.
        designs: number of rows.
        seed: of the draw.

    Returns:
        Rows with negative ids, which no DFT row has.
    """
    x = teacher.space.sample(designs, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        chunks = tqdm(x.split(_CHUNK_ROWS), desc="Labelling designs by the teacher", unit="chunk", leave=False)
        energies = torch.cat([teacher.energies(rows.to(teacher.device)).mean(dim=0).cpu() for rows in chunks])
    labels = BandLabels(energies, teacher.kpoints.cpu(), teacher.properties[0].name)
    return DesignTable(x, band_gap(energies), -1 - torch.arange(designs), (labels,))
