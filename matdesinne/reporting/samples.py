"""A picture of what a trained model samples for held-out targets."""

from __future__ import annotations

__all__ = ["draw_samples"]

from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
from jaxtyping import Float
from torch import Tensor

from matdesinne.files import atomic_path
from matdesinne.reporting.palette import BLUE, GREY
from matdesinne.targets import Property


def draw_samples(
    y: Float[Tensor, "n dy"], predicted: Float[Tensor, "n dy"], properties: Sequence[Property], path: Path
) -> None:
    """Draw the predicted properties of one sample for each target y against the target."""
    figure = matplotlib.figure.Figure(figsize=(4.5 * len(properties), 4.2), layout="constrained")
    for j, (axis, prop) in enumerate(zip(figure.subplots(1, len(properties), squeeze=False)[0], properties, strict=True)):
        ends = [float(y[:, j].min()), float(y[:, j].max())]
        axis.plot(ends, ends, color=GREY, linewidth=1, zorder=1)
        axis.scatter(y[:, j], predicted[:, j], s=4, color=BLUE, alpha=0.5)
        axis.set(xlabel=f"target {prop.name} [{prop.unit}]", ylabel=f"predicted {prop.name} of the sample [{prop.unit}]")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
