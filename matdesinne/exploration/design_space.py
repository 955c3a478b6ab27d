"""Figure 2 of the paper: how a property is distributed, and where in the design space it has which value."""

from __future__ import annotations

__all__ = ["design_space"]

import matplotlib.figure
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from omegaconf import DictConfig

from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.embedding import Embedding
from matdesinne.reporting.drawing import axis_label, bin_edges, save_figure, target_label, write_data
from matdesinne.reporting.palette import CYCLE, GREY, VALUES
from matdesinne.reporting.report import Picture, Section, Table

_BINS = 60


def design_space(subject: Exploration, config: DictConfig) -> Section:
    """Distribution of every property, and the design space on a plane coloured by it."""
    figures = [_distribution(subject)]
    text = "Rows: the labelled designs of the data set. Candidates: generated designs with the surrogate's prediction."
    if subject.embedding is None:
        text += " There are too few different designs for a map of the design space."
    else:
        figures += _maps(subject, subject.embedding)
    return Section("Design space", text, figures, [_counts(subject)])


def _counts(subject: Exploration) -> Table:
    def entry(name: str, y: Float[np.ndarray, "n dy"]) -> list[object]:
        quantiles = np.quantile(y[:, 0], [0.05, 0.5, 0.95]).tolist()
        return [name, len(y), *quantiles]

    rows = [] if subject.labelled is None else [entry("rows of the data set", subject.labelled.y.numpy())]
    rows += [entry(f"candidates, {target_label(t)}", t.mean.numpy()) for t in subject.generated]
    unit = axis_label(subject.properties[0])
    heads = ["designs", "number", f"5 % of {unit}", "median", "95 %"]
    return Table("Designs that are shown, with quantiles of the property.", heads, rows)


def _distribution(subject: Exploration) -> Picture:
    count = len(subject.properties)
    figure = matplotlib.figure.Figure(figsize=(5.5 * count, 3.8), layout="constrained")
    data: dict[str, tuple[str, list[object]]] = {"designs": ("", [])}
    for j, (axis, prop) in enumerate(zip(np.atleast_1d(figure.subplots(1, count)), subject.properties, strict=True)):
        sets = [(target_label(t), t.mean[:, j].numpy()) for t in subject.generated]
        if subject.labelled is not None:
            sets.insert(0, ("rows of the data set", subject.labelled.y[:, j].numpy()))
        every = np.concatenate([values for _, values in sets])
        bins = bin_edges(float(every.min()), float(every.max()), _BINS).tolist()
        for (name, values), color in zip(
            sets, ([GREY] if subject.labelled is not None else []) + list(CYCLE) * 9, strict=False
        ):
            filled = "stepfilled" if color == GREY else "step"
            axis.hist(values, bins=bins, density=True, histtype=filled, color=color, label=name, linewidth=1.5)
        if prop.floor is not None:
            axis.axvline(prop.floor, color="black", linestyle=":", linewidth=1)
        axis.set(xlabel=axis_label(prop), ylabel=f"density [1/{prop.unit}]", yscale="log")
        axis.legend(fontsize="small")
        data["designs"] = ("", [name for name, values in sets for _ in values])
        data[prop.name] = (prop.unit, every.tolist())
    write_data(subject.folder / "figure_2_distribution.parquet", data)
    return Picture(
        save_figure(figure, subject.folder, "figure_2_distribution"),
        "After Figure 2 of the paper, the distribution of the property: labelled rows of the data set (filled) and "
        "candidates for each target (lines) as densities; dotted: the floor, at and below which a target means the same.",
        "Histograms of the property for the rows of the data set and for the candidates of each target.",
    )


def _maps(subject: Exploration, embedding: Embedding) -> list[Picture]:
    sets = [("rows of the data set", embedding.labelled[0].y, embedding.labelled[1])] if embedding.labelled else []
    tables = [table for table, _ in embedding.generated]
    places = np.concatenate([place for _, place in embedding.generated])
    sets.append(("candidates of all targets", torch.cat([table.mean for table in tables]), places))
    pictures = []
    for j, prop in enumerate(subject.properties):
        figure = matplotlib.figure.Figure(figsize=(4.6 * len(sets) + 0.8, 4.4), layout="constrained")
        axes = list(np.atleast_1d(figure.subplots(1, len(sets), sharex=True, sharey=True)))
        values = [y[:, j].numpy() if prop.floor is None else y[:, j].clamp_min(prop.floor).numpy() for _, y, _ in sets]
        limits = (float(min(v.min() for v in values)), float(max(np.quantile(v, 0.995) for v in values)))
        for axis, (name, _, place), shown in zip(axes, sets, values, strict=True):
            order = np.argsort(shown)
            drawn = axis.scatter(
                *place[order].T, c=shown[order], s=5, cmap=VALUES, vmin=limits[0], vmax=limits[1], linewidths=0
            )
            axis.set_title(f"{len(place):,} {name}", fontsize="medium")
            bare(axis)
        figure.colorbar(drawn, ax=axes, label=axis_label(prop))
        name = "figure_2_map" if len(subject.properties) == 1 else f"figure_2_map_{prop.name}"
        write_data(
            subject.folder / f"{name}.parquet",
            {
                "designs": ("", [label for label, _, place in sets for _ in place]),
                "umap_1": ("1", np.concatenate([place[:, 0] for _, _, place in sets]).tolist()),
                "umap_2": ("1", np.concatenate([place[:, 1] for _, _, place in sets]).tolist()),
                prop.name: (prop.unit, np.concatenate([y[:, j].numpy() for _, y, _ in sets]).tolist()),
            },
        )
        pictures.append(
            Picture(
                save_figure(figure, subject.folder, name),
                "After Figure 2 of the paper, the design space on a plane (UMAP of the coordinates scaled by the box), each "
                f"design coloured by its {axis_label(prop)}"
                + ("" if prop.floor is None else f" (all at and below {prop.floor:g} {prop.unit} alike)")
                + "; both panels share one map, the axes have no unit.",
                f"Scatter plots of designs on a plane, coloured by {prop.name}.",
            )
        )
    return pictures


def bare(axis: Axes) -> None:
    """Axes of a map, whose coordinates mean nothing by themselves."""
    axis.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
