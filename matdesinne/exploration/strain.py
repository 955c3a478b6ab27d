"""Figures 4 and 5 of the paper: the strains of the cells of the designs."""

from __future__ import annotations

__all__ = ["StrainKind", "strain_section"]

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import matplotlib.figure
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.exploration.designs import Exploration
from matdesinne.files import write_table
from matdesinne.reporting.drawing import save_figure, target_label
from matdesinne.reporting.intervals import LEVEL, interval_text, mean_intervals
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


class _MeanStrain(NamedTuple):
    """Mean strains of a set of designs in percent with the ends of their intervals, by kind and average."""

    target: str
    designs: str
    number: int
    means: Float[np.ndarray, "3 2 2"]


def strain_section(exploration: Exploration, window: float) -> Section:
    """Returns the section on the strains of candidates and labelled rows, in the plane and out of it, and by target."""
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
    sets = [group for table in exploration.generated for group in reversed(_sets(exploration, table, window))]
    means = [_mean_strain(exploration, group) for group in sets if len(group.designs) > 0]
    return Section(title, text, [_draw_planes(exploration, window), _draw_averages(exploration, means)], [_table(means)])


def _sets(exploration: Exploration, table: Candidates, window: float) -> list[_DesignSet]:
    """Returns the labelled rows near the target of a table, and the table itself."""
    rows = table.designs[:0]
    if exploration.labelled is not None:
        allowed = torch.tensor([0.0 if wide else window for wide in table.target.is_interval])
        near = (table.target.residual(exploration.labelled.y).abs() <= allowed).all(dim=1)
        rows = exploration.labelled.x[near]
    return [_DesignSet(target_label(table), _ROWS, rows), _DesignSet(target_label(table), _CANDIDATES, table.designs)]


def _draw_planes(exploration: Exploration, window: float) -> Picture:
    """Draw Figure 4: the in-plane and out-of-plane strains of the designs for the lowest and the highest target."""
    tables = [exploration.generated[i] for i in dict.fromkeys([0, len(exploration.generated) - 1])]
    sets = [group for table in tables for group in _sets(exploration, table, window)]
    figure = matplotlib.figure.Figure(figsize=(7.6, 3.6 * len(tables)), layout="constrained")
    axes = figure.subplots(len(tables), 2, sharex=True, sharey=True, squeeze=False)
    data: dict[str, tuple[str, list[object]]] = {
        "target": ("", [group.target for group in sets for _ in group.designs]),
        "designs": ("", [group.name for group in sets for _ in group.designs]),
        "in_plane": ("%", []),
        "out_of_plane": ("%", []),
    }
    for axis, group in zip(axes.flat, sets, strict=True):
        planes = (StrainKind.IN_PLANE, StrainKind.OUT_OF_PLANE)
        inside, outside = (100 * exploration.space.strains(group.designs, kind.value).mean(dim=1) for kind in planes)
        axis.plot(inside, outside, ".", color=BLUE if group.name == _CANDIDATES else GREY, markersize=2.5)
        axis.axhline(0, color="black", linewidth=0.5)
        axis.axvline(0, color="black", linewidth=0.5)
        axis.set_title(f"{group.target}: {len(group.designs):,} {group.name}", fontsize="medium")
        data["in_plane"][1].extend(inside.tolist())
        data["out_of_plane"][1].extend(outside.tolist())
    for axis in axes[-1]:
        axis.set_xlabel("average in-plane strain [%]")
    for axis in axes[:, 0]:
        axis.set_ylabel("average out-of-plane strain [%]")
    write_table(exploration.folder / "figure_4.parquet", data)
    return Picture(
        save_figure(figure, exploration.folder, "figure_4"),
        "After Figure 4 of the paper: average in-plane and average out-of-plane strain of the rows of the data set (left) and "
        "of the candidates (right), for the lowest and the highest target. Each point is one design; all axes are the same.",
        "Scatter plots of in-plane against out-of-plane strain for rows of the data set and for candidates.",
    )


def _mean_strain(exploration: Exploration, group: _DesignSet) -> _MeanStrain:
    percent = [100 * exploration.space.strains(group.designs, kind.value).double() for kind in _LABELS]
    values = torch.stack([average for each in percent for average in (each.mean(dim=1), each.abs().mean(dim=1))], dim=1).numpy()
    means = np.stack([values.mean(axis=0), *mean_intervals(values, exploration.seed)])
    return _MeanStrain(group.target, group.name, len(group.designs), means.reshape(3, len(_LABELS), len(_AVERAGES)))


def _table(means: Sequence[_MeanStrain]) -> Table:
    heads = ["target", "designs", "number", *(f"{average} {label} [%]" for label in _LABELS.values() for average in _AVERAGES)]
    rows = [
        [entry.target, entry.designs, entry.number, *(interval_text(*entry.means[:, k, a]) for k in range(2) for a in range(2))]
        for entry in means
    ]
    return Table(f"Mean strains with {100 * LEVEL:.0f} % intervals (bootstrap over designs).", heads, rows)


def _draw_averages(exploration: Exploration, means: Sequence[_MeanStrain]) -> Picture:
    """Draw Figure 5: mean strains by target."""
    _write_averages(exploration, means)
    figure = matplotlib.figure.Figure(figsize=(8.6, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    targets = list(dict.fromkeys(entry.target for entry in means))
    for a, axis in enumerate(axes):
        _draw_bars(axis, means, targets, a)
        axis.axhline(0, color="black", linewidth=0.5)
        axis.set_xticks(range(len(targets)), [_without_name(exploration, target) for target in targets])
        axis.set(xlabel="target", ylabel=f"{_AVERAGES[a]} strain [%]")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    return Picture(
        save_figure(figure, exploration.folder, "figure_5"),
        "After Figure 5 of the paper: average (left) and average absolute (right) tensile or compressive and shear strain for "
        f"each target. Full bars: candidates; pale bars: rows of the data set; lines: {100 * LEVEL:.0f} % intervals of the "
        "mean.",
        "Bars of the average and average absolute strain for each target; the table below lists the numbers.",
    )


def _write_averages(exploration: Exploration, means: Sequence[_MeanStrain]) -> None:
    columns: dict[str, tuple[str, Sequence[object]]] = {
        name: (unit, [getattr(entry, name) for entry in means])
        for name, unit in (("target", ""), ("designs", ""), ("number", "1"))
    }
    for k, kind in enumerate(_LABELS):
        for a, average in enumerate(_AVERAGES):
            for i, ending in enumerate(("", "_lower", "_upper")):
                values = [float(entry.means[i, k, a]) for entry in means]
                columns[f"{kind.name.lower()}_{average.replace(' ', '_')}{ending}"] = ("%", values)
    write_table(exploration.folder / "figure_5.parquet", columns)


def _without_name(exploration: Exploration, target: str) -> str:
    """Returns the label of a target without the name of the property, if there is only one property."""
    name = exploration.properties[0].name.replace("_", " ")
    return target.removeprefix(f"{name} = ") if len(exploration.properties) == 1 else target


def _draw_bars(axis: Axes, means: Sequence[_MeanStrain], targets: Sequence[str], a: int) -> None:
    """Draw bars of both kinds and both sets for every target, for the average with number `a`."""
    width = 0.2
    for k, (label, color) in enumerate(zip(_LABELS.values(), (BLUE, VERMILLION), strict=True)):
        for place, (name, alpha) in enumerate(((_CANDIDATES, 1.0), (_ROWS, 0.35))):
            shown = [entry for entry in means if entry.designs == name]
            x = np.array([targets.index(entry.target) for entry in shown]) + (2 * k + place - 1.5) * width
            mean, low, high = (np.array([entry.means[i, k, a] for entry in shown]) for i in range(3))
            axis.bar(x, mean, 0.9 * width, color=color, alpha=alpha, label=f"{label}, {name}")
            axis.errorbar(x, mean, [mean - low, high - mean], fmt="none", ecolor="black", linewidth=1)
