"""Figure 2 of the paper: the distribution of each property, and a map of the design space coloured by it."""

from __future__ import annotations

__all__ = ["design_space_section", "hide_coordinates"]

from typing import NamedTuple

import matplotlib.figure
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes

from matdesinne.exploration.cell import draw_knobs
from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.embedding import Embedding
from matdesinne.files import write_table
from matdesinne.reporting.drawing import axis_label, bin_edges, save_figure, target_label
from matdesinne.reporting.palette import CYCLE, GREY, VALUES
from matdesinne.reporting.report import Picture, Section, Table

_BINS = 60
_ROWS = "rows of the data set"


class _Panel(NamedTuple):
    """The designs of one panel of the map."""

    title: str
    properties: Float[np.ndarray, "n dy"]
    places: Float[np.ndarray, "n 2"]


def design_space_section(exploration: Exploration) -> Section:
    """Returns the section with the distribution of every property and the map of the design space."""
    knobs = draw_knobs(exploration)
    figures = [*([] if knobs is None else [knobs]), _draw_distribution(exploration)]
    text = "Rows: the labelled designs of the data set. Candidates: generated designs with the surrogate's prediction."
    if exploration.embedding is None:
        text += " There are too few different designs for a map of the design space."
    else:
        panels = _panels(exploration.embedding)
        figures += [_draw_map(exploration, panels, j) for j in range(len(exploration.properties))]
    rows = [
        [name if name == _ROWS else f"candidates, {name}", len(y), *np.quantile(y[:, 0], [0.05, 0.5, 0.95]).tolist()]
        for name, y in _sets(exploration)
    ]
    heads = ["designs", "number", f"5 % of {axis_label(exploration.properties[0])}", "median", "95 %"]
    counts = Table("Numbers of the designs that are shown, and quantiles of the property.", heads, rows)
    return Section("Design space", text, figures, [counts])


def _sets(exploration: Exploration) -> list[tuple[str, Float[np.ndarray, "n dy"]]]:
    """Returns the properties of the labelled rows, if there are any, and of the candidates for each target."""
    rows = [] if exploration.labelled is None else [(_ROWS, exploration.labelled.y.numpy())]
    return rows + [(target_label(table), table.mean.numpy()) for table in exploration.generated]


def _draw_distribution(exploration: Exploration) -> Picture:
    sets = _sets(exploration)
    colors = [GREY] * (exploration.labelled is not None) + list(CYCLE) * 9
    count = len(exploration.properties)
    figure = matplotlib.figure.Figure(figsize=(5.5 * count, 3.8), layout="constrained")
    for j, (axis, prop) in enumerate(zip(np.atleast_1d(figure.subplots(1, count)), exploration.properties, strict=True)):
        every = np.concatenate([y[:, j] for _, y in sets])
        bins = bin_edges(float(every.min()), float(every.max()), _BINS)
        for (name, y), color in zip(sets, colors, strict=False):
            style = "stepfilled" if color == GREY else "step"
            axis.hist(y[:, j], bins=bins, density=True, histtype=style, color=color, label=name, linewidth=1.5)
        if prop.floor is not None:
            axis.axvline(prop.floor, color="black", linestyle=":", linewidth=1)
        axis.set(xlabel=axis_label(prop), ylabel=f"density [1/{prop.unit}]", yscale="log")
        axis.legend(fontsize="small")
    values = np.concatenate([y for _, y in sets])
    columns = {"designs": ("", [name for name, y in sets for _ in y])}
    columns |= {prop.name: (prop.unit, values[:, j].tolist()) for j, prop in enumerate(exploration.properties)}
    write_table(exploration.folder / "figure_2_distribution.parquet", columns)
    return Picture(
        save_figure(figure, exploration.folder, "figure_2_distribution"),
        "After Figure 2b of the paper: the distribution of the property, for labelled rows of the data set (filled) and for "
        "the candidates for each target (lines), as densities. Dotted: the floor; all values at or below it are one target.",
        "Histograms of the property for the rows of the data set and for the candidates for each target.",
    )


def _panels(embedding: Embedding) -> list[_Panel]:
    rows = [] if embedding.labelled is None else [_Panel(_ROWS, embedding.labelled[0].y.numpy(), embedding.labelled[1])]
    tables, places = zip(*embedding.generated, strict=True)
    return [*rows, _Panel("candidates of all targets", torch.cat([t.mean for t in tables]).numpy(), np.concatenate(places))]


def _draw_map(exploration: Exploration, panels: list[_Panel], j: int) -> Picture:
    """Draw the map with the colours of the property with number `j`."""
    prop = exploration.properties[j]
    name = "figure_2_map" if len(exploration.properties) == 1 else f"figure_2_map_{prop.name}"
    floor = -np.inf if prop.floor is None else prop.floor
    values = [panel.properties[:, j].clip(min=floor) for panel in panels]
    lowest, highest = min(v.min() for v in values), max(np.quantile(v, 0.995) for v in values)
    figure = matplotlib.figure.Figure(figsize=(4.6 * len(panels) + 0.8, 4.4), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(1, len(panels), sharex=True, sharey=True)))
    for axis, panel, shown in zip(axes, panels, values, strict=True):
        order = np.argsort(shown)  # the highest values on top
        points = axis.scatter(*panel.places[order].T, c=shown[order], s=5, cmap=VALUES, vmin=lowest, vmax=highest, linewidths=0)
        axis.set_title(f"{len(shown):,} {panel.title}", fontsize="medium")
        hide_coordinates(axis)
    figure.colorbar(points, ax=axes, label=axis_label(prop))
    places = np.concatenate([panel.places for panel in panels])
    columns = {
        "designs": ("", [panel.title for panel in panels for _ in panel.places]),
        "umap_1": ("1", places[:, 0].tolist()),
        "umap_2": ("1", places[:, 1].tolist()),
        prop.name: (prop.unit, np.concatenate([panel.properties[:, j] for panel in panels]).tolist()),
    }
    write_table(exploration.folder / f"{name}.parquet", columns)
    alike = "" if prop.floor is None else f" (one colour for all values at and below {prop.floor:g} {prop.unit})"
    return Picture(
        save_figure(figure, exploration.folder, name),
        "After Figure 2c of the paper: the design space on a plane (UMAP of the coordinates scaled by the box), each design "
        f"coloured by its {axis_label(prop)}{alike}. Both panels are one map; its axes have no unit.",
        f"Scatter plots of designs on a plane, coloured by {prop.name}.",
    )


def hide_coordinates(axis: Axes) -> None:
    """Remove the ticks of a map, whose coordinates have no meaning by themselves."""
    axis.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
