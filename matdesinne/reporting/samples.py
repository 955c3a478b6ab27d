"""A picture of what a trained model samples for held-out targets."""

from __future__ import annotations

__all__ = ["draw_samples"]

from pathlib import Path

import matplotlib.figure
import torch

from matdesinne.data.table import DesignTable
from matdesinne.files import atomic_path
from matdesinne.models.base import InverseModel
from matdesinne.reporting.palette import BLUE, GREY
from matdesinne.surrogates.base import Surrogate

_ROWS = 2048


def draw_samples(model: InverseModel, surrogate: Surrogate, held_out: DesignTable, path: Path, seed: int = 0) -> None:
    """Draw the predicted properties of one sample for each held-out target against the target."""
    y = held_out.y[:_ROWS]
    predicted, _ = surrogate.predict_many(model.sample(y, torch.Generator().manual_seed(seed)))
    count = len(surrogate.properties)
    figure = matplotlib.figure.Figure(figsize=(4.5 * count, 4.2), layout="constrained")
    for j, (axis, prop) in enumerate(zip(figure.subplots(1, count, squeeze=False)[0], surrogate.properties, strict=True)):
        ends = [float(y[:, j].min()), float(y[:, j].max())]
        axis.plot(ends, ends, color=GREY, linewidth=1, zorder=1)
        axis.scatter(y[:, j], predicted[:, j], s=4, color=BLUE, alpha=0.5)
        axis.set(xlabel=f"target {prop.name} [{prop.unit}]", ylabel=f"predicted {prop.name} of the sample [{prop.unit}]")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
