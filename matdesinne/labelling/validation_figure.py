"""Figure 3 of the paper: labels of the candidates for all targets on one axis, errors, and example structures."""

from __future__ import annotations

__all__ = ["draw_validation"]

from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from scipy import stats
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.reporting.cells import atom_handles, draw_layer
from matdesinne.reporting.drawing import axis_label, printed_name, save_figure, target_label
from matdesinne.reporting.palette import CYCLE, GREY
from matdesinne.structures import Prototype

_EXAMPLES = 2
"""Number of structures for each target."""
_BELOW = 0.2
"""How far below the property's floor labels are shown, in its unit; the paper's gaps end at the floor."""
_BINS = 60
_LEAST = 1e-2
"""Errors smaller than this share of the median spread are drawn there."""

Labelled = tuple[Candidates, Float[Tensor, " n"]]
"""Candidates for a target and their labels, without failures."""


def draw_validation(
    chosen: Sequence[Candidates], labels: Sequence[Float[Tensor, " n"]], prototype: Prototype | None, folder: Path
) -> None:
    """Write ``validation.png`` and ``.pdf``; structures are drawn if designs are crystals. A label of NaN is a failure."""
    known: list[Labelled] = [(table.take(~y.isnan()), y[~y.isnan()]) for table, y in zip(chosen, labels, strict=True)]
    count = len(known) * _EXAMPLES
    figure = matplotlib.figure.Figure(figsize=(10, 3.6 if prototype is None else 5.6), layout="constrained")
    top, *bottom = figure.subfigures(
        1 if prototype is None else 2, 1, squeeze=False, height_ratios=[1.5, 1][: 1 if prototype is None else 2]
    )[:, 0]
    left, right = top.subplots(1, 2, width_ratios=[1.7, 1])
    _draw_labels(left, known)
    _draw_errors(right, known)
    if prototype is not None:
        axes = list(bottom[0].subplots(1, count, squeeze=False)[0])
        for number, (candidates, y) in enumerate(known):
            _draw_examples(axes[_EXAMPLES * number :][:_EXAMPLES], candidates, y, prototype)
        bottom[0].legend(handles=atom_handles(prototype.symbols), loc="outside lower center", ncols=9, frameon=False)
    save_figure(figure, folder, "validation")


def _draw_labels(axis: Axes, known: Sequence[Labelled]) -> None:
    """Draw the histograms of the labels for all targets on one axis, from a little below the floor up."""
    prop = known[0][0].properties[0]
    every = torch.cat([y for _, y in known])
    low = float(every.min()) if prop.floor is None else max(float(every.min()), prop.floor - _BELOW)
    slack = max(0.02 * (float(every.max()) - low), 0.01)
    bins = np.linspace(low - (slack if prop.floor is None else 0.0), float(every.max()) + slack, _BINS + 1).tolist()
    for (candidates, y), color in zip(known, CYCLE * 9, strict=False):
        below = int((y < bins[0]).sum())
        label = f"{target_label(candidates)}: {len(y)} designs" + (
            f", {below} below {bins[0]:.1f}{prop.suffix}" if below else ""
        )
        axis.hist(y.numpy(), bins=bins, color=color, alpha=0.8, label=label.replace("-", "−"))
        for edge in {candidates.target.lower[0], candidates.target.upper[0]}:
            if np.isfinite(edge):
                axis.axvline(edge, color=color, linestyle="--", linewidth=1)
    axis.set(xlabel=axis_label(prop), ylabel="designs", yscale="log", xlim=(bins[0], bins[-1]))
    axis.set_ylim(0.7, 10 * axis.get_ylim()[1])  # room for the legend
    axis.yaxis.set_major_formatter("{x:.0f}")
    axis.legend(fontsize="small", loc="upper left")


def _draw_errors(axis: Axes, known: Sequence[Labelled]) -> None:
    """Draw the error of each prediction over its spread, and the band that holds nine in ten of normal errors."""
    prop = known[0][0].properties[0]
    spread = torch.cat([candidates.std[:, 0].double() for candidates, _ in known])
    error = torch.cat([(y - candidates.mean[:, 0].double()).abs() for candidates, y in known])
    size = float(spread.median().clamp_min(1e-12))
    low, high = _LEAST * size, 1.5 * max(float(error.max()), float(spread.max()), size)
    colors = [color for (_, y), color in zip(known, CYCLE * 9, strict=False) for _ in y]
    axis.scatter(spread.clamp(low, high), error.clamp(low, high), s=10, c=colors, alpha=0.6, linewidths=0)
    x = np.geomspace(0.3 * max(low, float(spread.min())), 3 * float(spread.max().clamp_min(low)), 50)
    axis.fill_between(
        x, *(stats.norm.ppf(0.5 + 0.5 * share) * x for share in (0.05, 0.95)), color=GREY, alpha=0.25, label="90 %"
    )
    axis.plot(x, x, color=GREY, linestyle="--", label="error = spread")
    unit = axis_label(prop).removeprefix(printed_name(prop.name))
    names = [f"{name}{unit}" for name in ("predicted spread", f"|label − prediction| of the {printed_name(prop.name)}")]
    axis.set(xlabel=names[0], ylabel=names[1], xscale="log", yscale="log", xlim=(x[0], x[-1]), ylim=(0.8 * low, high))
    axis.yaxis.label.set_fontsize("small")
    axis.legend(fontsize="small", loc="lower right")


def _draw_examples(axes: Sequence[Axes], candidates: Candidates, labels: Float[Tensor, " n"], prototype: Prototype) -> None:
    """Draw the design whose label is nearest to the target, then the designs that differ most from those drawn."""
    error = candidates.target.residual(labels.unsqueeze(1)).abs()[:, 0]
    unit = candidates.space.to_unit(candidates.designs)
    drawn = [int(error.argmin())]
    while len(drawn) < min(len(axes), len(labels)):
        drawn.append(int(torch.cdist(unit, unit[drawn]).amin(dim=1).argmax()))
    for axis, row in zip(axes, drawn, strict=False):
        design = candidates.space.design(candidates.designs[row].tolist())
        draw_layer(prototype.atoms(design), axis)
        prop = candidates.properties[0]
        value = f"{float(labels[row]):.2f}{prop.suffix}".replace("-", "−")
        axis.set_title(
            f"target {target_label(candidates).removeprefix(printed_name(prop.name)).strip()}\nlabel {value}", fontsize=8
        )
    for axis in axes:
        axis.set_axis_off()
