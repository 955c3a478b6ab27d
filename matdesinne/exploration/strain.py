"""Figures 4 and 5 of the paper: the strains of the cells of the designs."""

from __future__ import annotations

__all__ = ["StrainKind", "strain_section"]

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure
import pandas
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.exploration.designs import Exploration
from matdesinne.files import write_table
from matdesinne.reporting.drawing import save_figure, target_label
from matdesinne.reporting.intervals import LEVEL, draw_bars, interval_columns, interval_texts
from matdesinne.reporting.palette import BLUE, GREY, VERMILLION
from matdesinne.reporting.report import Picture, Section, Table
from matdesinne.structures import CELL_PARAMETERS


class StrainKind(Enum):
    """The lattice parameters over which a strain is averaged."""

    IN_PLANE = ("a", "b", "gamma")
    OUT_OF_PLANE = ("c", "alpha", "beta")
    TENSILE = ("a", "b", "c")
    SHEAR = ("alpha", "beta", "gamma")


_LABELS = {StrainKind.TENSILE: "tensile/compressive (a, b, c)", StrainKind.SHEAR: "shear (alpha, beta, gamma)"}
"""Kinds of Figure 5."""
_AVERAGES = ("average", "average absolute")
_CANDIDATES, _ROWS = "candidates", "rows of the data set"


class _DesignSet(NamedTuple):
    """Designs that a figure shows together: candidates for a target, or the rows of the data set beside them."""

    target: str
    name: str
    designs: Float[Tensor, "n dx"]


def strain_section(exploration: Exploration, window: float) -> Section:
    """Returns the section on the strains of candidates and labelled rows, in the plane and out of it, and by target.

    Labelled rows as near to a target as `window`, in the unit of the property, are shown beside its candidates.
    """
    title, space = "Strain", exploration.space
    missing = [name for name in CELL_PARAMETERS if name not in space.names]
    if missing or not all(space.reference[space.index(name)] != 0 for name in CELL_PARAMETERS):
        why = f"no parameters {', '.join(missing)}" if missing else "a reference of zero for a lattice parameter"
        return Section(
            title, f"Figures 4 and 5 of the paper are left out: they need a cell and its reference, and this run has {why}."
        )
    text = (
        "Strain is the relative deviation of a lattice parameter from that of the reference cell ("
        + ", ".join(f"{p.name} = {p.reference:g} {p.unit}" for p in space.parameters if p.name in CELL_PARAMETERS)
        + "). In the plane: average over a, b and gamma; out of the plane: over c, alpha and beta; tensile or compressive: "
        "over a, b and c; shear: over alpha, beta and gamma.\n\n"
        f"The candidates for a value are shown beside the rows of the data set whose label is within {window:g} "
        f"{exploration.properties[0].unit} of it, those for a range beside the rows whose label is in the range."
    )
    sets = [_sets(exploration, table, window) for table in exploration.generated]
    means = _mean_strains(exploration, [group for rows, candidates in sets for group in (candidates, rows)])
    figures = [_draw_planes(exploration, sets), _draw_averages(exploration, means)]
    return Section(title, text, figures, [_table(means)])


def _sets(exploration: Exploration, table: Candidates, window: float) -> tuple[_DesignSet, _DesignSet]:
    """Returns the labelled rows near the target of a table, and the table itself."""
    rows = table.designs[:0]
    if exploration.labelled is not None:
        allowed = torch.tensor([0.0 if wide else window for wide in table.target.is_interval])
        near = (table.target.residual(exploration.labelled.y).abs() <= allowed).all(dim=1)
        rows = exploration.labelled.x[near]
    return _DesignSet(target_label(table), _ROWS, rows), _DesignSet(target_label(table), _CANDIDATES, table.designs)


def _draw_planes(exploration: Exploration, sets: Sequence[tuple[_DesignSet, _DesignSet]]) -> Picture:
    """Draw Figure 4: the in-plane and out-of-plane strains of the designs for the lowest and the highest target."""
    shown = sets if len(sets) == 1 else [sets[0], sets[-1]]
    figure = matplotlib.figure.Figure(figsize=(7.6, 3.6 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 2, sharex=True, sharey=True, squeeze=False)
    frames = []
    for axis, group in zip(axes.flat, [group for pair in shown for group in pair], strict=True):
        planes = (StrainKind.IN_PLANE, StrainKind.OUT_OF_PLANE)
        strains = [exploration.space.strains(group.designs, kind.value).double() for kind in planes]
        inside, outside = (100 * strain.mean(dim=1).numpy() for strain in strains)
        axis.plot(inside, outside, ".", color=BLUE if group.name == _CANDIDATES else GREY, markersize=2.5)
        axis.axhline(0, color="black", linewidth=0.5)
        axis.axvline(0, color="black", linewidth=0.5)
        axis.set_title(f"{group.target}: {len(group.designs):,} {group.name}", fontsize="medium")
        columns = {"target": group.target, "designs": group.name, "in_plane": inside, "out_of_plane": outside}
        frames.append(pandas.DataFrame(columns))
    for axis in axes[-1]:
        axis.set_xlabel("average in-plane strain [%]")
    for axis in axes[:, 0]:
        axis.set_ylabel("average out-of-plane strain [%]")
    _write(exploration.folder / "figure_4.parquet", pandas.concat(frames))
    return Picture(
        save_figure(figure, exploration.folder, "figure_4"),
        "After Figure 4 of the paper: average in-plane and average out-of-plane strain of the rows of the data set (left) and "
        "of the candidates (right), for the lowest and the highest target. Each point is one design; all axes are the same.",
        "Scatter plots of in-plane against out-of-plane strain for rows of the data set and for candidates.",
    )


def _write(path: Path, frame: pandas.DataFrame) -> None:
    units = {"target": "", "designs": "", "number": "1"}
    write_table(path, {str(name): (units.get(str(name), "%"), column.to_numpy()) for name, column in frame.items()})


def _mean_strains(exploration: Exploration, sets: Sequence[_DesignSet]) -> pandas.DataFrame:
    """Returns the mean strains of Figure 5 in percent with the ends of their intervals, one row for each set with designs."""
    frames = []
    for group in sets:
        if len(group.designs) > 0:
            row: dict[str, object] = {"target": group.target, "designs": group.name, "number": len(group.designs)}
            for kind in _LABELS:
                strains = 100 * exploration.space.strains(group.designs, kind.value).double()
                for average, values in zip(_AVERAGES, (strains, strains.abs()), strict=True):
                    row |= interval_columns(_column(kind, average), values.mean(dim=1, keepdim=True).numpy(), exploration.seed)
            frames.append(pandas.DataFrame(row))
    return pandas.concat(frames, ignore_index=True)


def _column(kind: StrainKind, average: str) -> str:
    return f"{kind.name.lower()}_{average.replace(' ', '_')}"


def _table(means: pandas.DataFrame) -> Table:
    heads = ["target", "designs", "number", *(f"{average} {label} [%]" for label in _LABELS.values() for average in _AVERAGES)]
    texts = [interval_texts(means, _column(kind, average)) for kind in _LABELS for average in _AVERAGES]
    rows = list(zip(means["target"], means["designs"], means["number"], *texts, strict=True))
    return Table(f"Mean strains with {100 * LEVEL:.0f} % intervals (bootstrap over designs).", heads, rows)


def _draw_averages(exploration: Exploration, means: pandas.DataFrame) -> Picture:
    """Draw Figure 5: mean strains by target."""
    _write(exploration.folder / "figure_5.parquet", means)
    figure = matplotlib.figure.Figure(figsize=(8.6, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    prefix = f"{exploration.properties[0].name.replace('_', ' ')} = " if len(exploration.properties) == 1 else ""
    targets = [target.removeprefix(prefix) for target in means["target"].unique()]
    for axis, average in zip(axes, _AVERAGES, strict=True):
        _draw_average(axis, means, average)
        axis.axhline(0, color="black", linewidth=0.5)
        axis.set_xticks(range(len(targets)), targets)
        axis.set(xlabel="target", ylabel=f"{average} strain [%]")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    return Picture(
        save_figure(figure, exploration.folder, "figure_5"),
        "After Figure 5 of the paper: average (left) and average absolute (right) tensile or compressive and shear strain for "
        f"each target. Full bars: candidates; pale bars: rows of the data set; lines: {100 * LEVEL:.0f} % intervals of the "
        "mean.",
        "Bars of the average and average absolute strain for each target; the table below lists the numbers.",
    )


def _draw_average(axis: Axes, means: pandas.DataFrame, average: str) -> None:
    """Draw bars of both kinds and both sets for every target."""
    width, place = 0.2, pandas.factorize(means["target"])[0]
    for k, (kind, color) in enumerate(zip(_LABELS, (BLUE, VERMILLION), strict=True)):
        for i, (name, alpha) in enumerate(((_CANDIDATES, 1.0), (_ROWS, 0.35))):
            shown = (means["designs"] == name).to_numpy()
            style = {"color": color, "alpha": alpha, "label": f"{_LABELS[kind]}, {name}"}
            draw_bars(axis, place[shown] + (2 * k + i - 1.5) * width, means[shown], _column(kind, average), width, **style)
