"""The picture of a frontier: the least cost over the property, and the strains that give it."""

from __future__ import annotations

__all__ = ["draw_frontier"]

from pathlib import Path

import matplotlib.figure
from matplotlib.axes import Axes

from matdesinne.candidates import Candidates
from matdesinne.exploration.frontier.checked import CheckedDesigns
from matdesinne.exploration.frontier.kinds import simple_strains
from matdesinne.exploration.frontier.search import Frontier
from matdesinne.reporting.drawing import axis_label, printed_name, printed_unit, save_figure
from matdesinne.reporting.palette import BLUE, GREEN, ORANGE, PURPLE, VERMILLION
from matdesinne.reporting.report import Picture
from matdesinne.surrogates.base import Surrogate

_SIMPLE = (VERMILLION, GREEN, ORANGE)
_ROOM = 1.35
"""Highest cost in the picture, relative to that of the frontier or of a label."""


def draw_frontier(frontier: Frontier, surrogate: Surrogate, checked: CheckedDesigns | None, folder: Path) -> Picture:
    """Draw the frontier with the costs of simple strains and labels, and for a layer its principal strains below."""
    layer = frontier.designs.space.layer
    panels = 1 if layer is None else 2
    figure = matplotlib.figure.Figure(figsize=(5.4, 3.9 if layer is None else 5.6), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False, height_ratios=[2, 1][:panels])[:, 0]
    _draw_costs(axes[0], frontier, surrogate, checked)
    if layer is not None:
        _draw_strains(axes[1], frontier)
    axes[-1].set_xlabel(axis_label(frontier.prop))
    caption = (
        f"The least {printed_name(frontier.objective.text)} of each {printed_name(frontier.prop.name)} (blue), as the "
        "surrogate predicts it, with the predicted spread of the property as bars."
    )
    if layer is not None:
        caption += (
            " Dashed: designs with biaxial or uniaxial strain alone, where a uniaxial strain leaves the direction across as it "
            "is. Below: the principal strains of the frontier."
        )
    caption += "" if checked is None else " Circles: labels of an oracle."
    alt = f"{frontier.objective.text} over {frontier.prop.name}."
    return Picture(save_figure(figure, folder, "frontier"), caption, alt)


def _draw_costs(axis: Axes, frontier: Frontier, surrogate: Surrogate, checked: CheckedDesigns | None) -> None:
    highest = frontier.cost.max().item()
    lowest = frontier.cost.min().item()
    column = list(frontier.designs.properties).index(frontier.prop)
    spread = frontier.designs.std[:, column]
    label = "least of all designs"
    axis.errorbar(frontier.values, frontier.cost, xerr=spread, color=BLUE, marker="o", markersize=4, linewidth=1.5, label=label)
    for strain, color in zip(simple_strains(surrogate.space), _SIMPLE, strict=False):
        mean, std = surrogate.predict_many(strain.designs)
        table = Candidates(surrogate.space, surrogate.properties, strain.designs, frontier.designs.target, mean, std, "sampled")
        cost = frontier.objective.values(table)
        axis.plot(mean[:, column], cost, color=color, linewidth=1, linestyle="--", zorder=4, label=strain.name)
    if checked is not None:
        x, y = checked.labels.T
        axis.scatter(x, y, s=45, facecolors="none", edgecolors="black", linewidths=1.2, zorder=5, label="calculated")
        highest = max(highest, checked.labels[:, 1].max().item())
    slack = 0.04 * (highest - lowest)
    axis.set_ylim(lowest - slack, lowest + _ROOM * (highest - lowest) + slack)
    width = frontier.values.max().item() - frontier.values.min().item() or 1.0
    low, high = frontier.values.min().item(), frontier.values.max().item()
    axis.set_xlim(low - 0.04 * width, high + 0.06 * width)
    unit = f" [{printed_unit(frontier.unit)}]" if frontier.unit not in ("", "1") else ""
    axis.set_ylabel(f"{printed_name(frontier.objective.text)}{unit}")
    axis.legend(fontsize="small", frameon=False)


def _draw_strains(axis: Axes, frontier: Frontier) -> None:
    layer = frontier.designs.space.layer
    assert layer is not None
    strains = layer(frontier.designs.designs)
    for name, label, color, marker in (("strain_1", "ε₁", BLUE, "^"), ("strain_2", "ε₂", PURPLE, "v")):
        axis.plot(frontier.values, 100 * strains[name], color=color, marker=marker, markersize=4, linewidth=1, label=label)
    axis.axhline(0, color="black", linewidth=0.5)
    axis.set_ylabel("strain [%]")
    axis.legend(fontsize="small", frameon=False)
