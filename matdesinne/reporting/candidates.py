"""Figures of samples and candidates, and the report's section of a generation."""

from __future__ import annotations

__all__ = ["candidate_view", "draw_candidates", "draw_samples", "run_section"]

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.figure
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.data.table import DesignTable
from matdesinne.files import atomic_path
from matdesinne.pipeline import DesignRun
from matdesinne.reporting.changes import start_sentence, strain_sentence
from matdesinne.reporting.closing import nearest_rows
from matdesinne.reporting.drawing import axis_label, bin_edges
from matdesinne.reporting.interactive import CandidateView
from matdesinne.reporting.palette import BLUE, GREY, VERMILLION
from matdesinne.reporting.report import Picture, Section, Table
from matdesinne.structures import CELL_PARAMETERS, Prototype, cell_vectors
from matdesinne.targets import Property

_MOST = 2000
"""Largest number of candidates in a view, which then takes a few MB and tens of milliseconds a brush."""
_DECIMALS = 6
"""Of fractional coordinates."""
_SAMPLED, _FINAL, _TARGET = GREY, BLUE, VERMILLION


def draw_candidates(run: DesignRun, path: str | Path) -> None:
    """Draw histograms of the predicted properties with the target, and of every parameter, as densities.

    Grey: the samples; blue: the final candidates; orange: the target.
    """
    sampled, final = run.stages["sampled"], run.candidates
    panels = len(final.properties) + final.space.dimension
    columns = min(panels, 4)
    rows = -(-panels // columns)
    width, height = 3.2 * columns, 2.6 * rows
    figure = matplotlib.figure.Figure(figsize=(width, height))
    # the space around and between panels in inches: a layout engine would draw everything twice
    figure.subplots_adjust(0.5 / width, 0.5 / height, 1 - 0.1 / width, 1 - 0.4 / height, 0.2, 0.25)
    axes = list(np.atleast_1d(figure.subplots(rows, columns)).flat)
    for j, (axis, prop) in enumerate(zip(axes, final.properties, strict=False)):
        _draw_densities(axis, sampled.mean[:, j], final.mean[:, j], final.stage, 60, 0.001)
        for edge in {final.target.lower[j], final.target.upper[j]}:
            if np.isfinite(edge):
                axis.axvline(edge, color=_TARGET, linestyle="--", label="target")
        axis.set(xlabel=axis_label(prop), yscale="log")
        axis.legend(fontsize="small")
    for i, (axis, parameter) in enumerate(zip(axes[len(final.properties) :], final.space.parameters, strict=False)):
        _draw_densities(axis, sampled.designs[:, i], final.designs[:, i], final.stage, 40, 0.0)
        axis.set_xlabel(axis_label(parameter))
    for axis in axes[panels:]:
        axis.set_axis_off()
    figure.suptitle(f"{len(final):,} candidates for {final.target.format(final.properties)}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_densities(
    axis: Axes, sampled: Float[Tensor, " n"], final: Float[Tensor, " m"], stage: str, count: int, left_out: float
) -> None:
    """Draw two histograms, without a fraction of the samples on either side, which would squeeze the rest."""
    low, high = np.quantile(sampled, left_out, method="lower"), np.quantile(sampled, 1 - left_out, method="higher")
    bins = bin_edges(float(min(low, final.min())), float(max(high, final.max())), count)
    axis.hist(sampled, bins=bins, density=True, histtype="stepfilled", color=_SAMPLED, label="sampled")
    axis.hist(final, bins=bins, density=True, histtype="step", color=_FINAL, label=stage)


def candidate_view(
    candidates: Candidates,
    prototype: Prototype | None = None,
    measured: DesignTable | None = None,
    labels: Float[Tensor, " n"] | None = None,
) -> CandidateView:
    """Returns parameters, predictions and what follows from them as axes and columns of an interactive view.

    Of more than 2,000 candidates it shows those that were checked, and those with the smallest spread.

    Args:
        candidates: of one target.
        prototype: the atoms of a design, where designs are crystals.
        measured: rows of the table, for the distance to the nearest one.
        labels: values of the first property by an oracle, NaN where a candidate was not checked.
    """
    spread = candidates.std.sum(dim=1)
    if labels is not None:
        spread = spread.where(labels.isnan(), -1.0)
    rows = spread.argsort(stable=True)[:_MOST].sort().values
    table, space = candidates.take(rows), candidates.space
    columns: dict[str, tuple[str, list[float]]] = {"row": ("1", rows.tolist())}
    for i, parameter in enumerate(space.parameters):
        columns[parameter.name] = (parameter.unit, table.designs[:, i].tolist())
    targets = {}
    for j, prop in enumerate(table.properties):
        columns[prop.name] = (prop.unit, table.mean[:, j].tolist())
        columns[f"{prop.name}_std"] = (prop.unit, table.std[:, j].tolist())
        if table.target.asked[j]:
            targets[prop.name] = (table.target.lower[j], table.target.upper[j])
    strained = [parameter.name for parameter in space.parameters if parameter.reference != 0]
    if strained:
        columns["largest strain"] = ("1", space.strains(table.designs, strained).abs().amax(dim=1).tolist())
    hidden = ["row"]
    if space.layer is not None:
        strains = space.layer(table.designs)
        hidden += ("strain_1", "strain_2", "strain_angle")
        columns |= {name: (space.layer.unit(name), strains[name].tolist()) for name in hidden[1:]}
    if table.start is not None:
        columns["distance to start"] = ("1", table.start.distance(table.designs).tolist())
    if measured is not None and space.bounded:
        columns["distance to data"] = ("1", nearest_rows(space, table.designs, measured)[0].tolist())
    checked: list[bool] = []
    if labels is not None:
        first = table.properties[0]
        columns[f"{first.name} (checked)"] = (first.unit, labels[rows].tolist())
        if first.name in targets:
            targets[f"{first.name} (checked)"] = targets[first.name]
        checked = labels[rows].isfinite().tolist()
    view = CandidateView(columns, hidden, targets, checked)
    if prototype is None or not space.has(CELL_PARAMETERS):
        return view
    lattice = space.values(table.designs.double(), CELL_PARAMETERS)
    positions = prototype.fractional(lattice if prototype.response is not None else lattice[:1])
    cells = cell_vectors(lattice).flatten(start_dim=1).float()
    return replace(
        view, symbols=prototype.symbols, positions=positions.round(decimals=_DECIMALS).tolist(), cells=cells.tolist()
    )


def run_section(run: DesignRun, picture: Path, view: CandidateView | None = None) -> Section:
    """Returns the section of a report on a generation: the counts, errors and seconds of its stages, the picture, the view."""
    errors = {name: table.mean_errors() for name, table in run.stages.items()}
    heads = ["stage", "designs", *(f"mean |{prop.name} - target| [{prop.unit}]" for prop in errors[run.candidates.stage])]
    heads.append("time [s]")
    rows = [[name, len(table), *errors[name].values(), float(run.seconds.get(name, 0.0))] for name, table in run.stages.items()]
    figure = Picture(
        picture,
        "Predicted properties and the target, and every parameter. Grey: the samples; blue: the final candidates; orange: the "
        "target. All histograms are densities.",
        "Histograms of the predictions and of every parameter for the samples and for the candidates.",
    )
    text = (
        "Errors are those of the surrogate that localizes: they say how near to the target its prediction is, not how near a "
        f"calculation will be. Samples outside the design space: {run.outside:,}."
    )
    sentences = (start_sentence(run.candidates), strain_sentence(run.candidates))
    text = " ".join(filter(None, (text, *sentences)))
    return Section("Candidates", text, [figure], [Table("Designs after each stage.", heads, rows)], view)


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
