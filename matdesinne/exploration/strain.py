"""Figures 4 and 5 of the paper: how the cells of the designs are strained."""

from __future__ import annotations

__all__ = ["Kind", "strain", "strains"]

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from omegaconf import DictConfig
from torch import Tensor

from matdesinne.data.table import DesignTable
from matdesinne.exploration.designs import Exploration
from matdesinne.reporting.drawing import save_figure, target_label, write_data
from matdesinne.reporting.intervals import LEVEL, interval_text, mean_intervals
from matdesinne.reporting.palette import BLUE, GREY, VERMILLION
from matdesinne.reporting.report import Picture, Section, Table
from matdesinne.space import DesignSpace
from matdesinne.structures import CELL_PARAMETERS
from matdesinne.targets import Target


class Kind(Enum):
    """Lattice parameters over which a strain is averaged."""

    IN_PLANE = ("a", "b", "gamma")
    OUT_OF_PLANE = ("c", "alpha", "beta")
    TENSILE = ("a", "b", "c")
    SHEAR = ("alpha", "beta", "gamma")


_NAMES = {Kind.TENSILE: "tensile/compressive (a, b, c)", Kind.SHEAR: "shear (alpha, beta, gamma)"}
_SIZES = ("average", "average absolute")
_CANDIDATES, _ROWS = "candidates", "rows of the data set"


class MeanStrain(NamedTuple):
    """Strains of the designs for one target, in percent.

    Args:
        target: what the designs were made for, or have.
        designs: which designs.
        number: how many.
        means: mean, lower and upper end of its interval, for each kind and for averages with and without the sign.
    """

    target: str
    designs: str
    number: int
    means: Float[np.ndarray, "3 2 2"]


def strains(space: DesignSpace, designs: Float[Tensor, "n dx"], kind: Kind) -> Float[Tensor, "n 3"]:
    """Relative deviations of lattice parameters from those of the reference cell, positive under tension.

    Args:
        space: with the six lattice parameters, whose references are not zero.
        designs: physical units.
        kind: which three.

    Example:
        >>> from matdesinne.space import Parameter
        >>> space = DesignSpace([Parameter(name, "angstrom", reference=2.0) for name in ("a", "b", "gamma")])
        >>> strains(space, torch.tensor([[2.5, 2.0, 1.5]]), Kind.IN_PLANE).tolist()
        [[0.25, 0.0, -0.25]]
    """
    columns = [space.index(name) for name in kind.value]
    reference = space.reference[columns].to(designs)
    return (designs[:, columns] - reference) / reference


def strain(subject: Exploration, config: DictConfig) -> Section:
    """Average strains of labelled rows and candidates: in the plane against out of it, and by target."""
    title, space = "Strain", subject.space
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
        f"Beside the candidates for a value stand rows of the data set with a label within {config.window:g} "
        f"{subject.properties[0].unit} of it, beside those for a range the rows whose label is in it."
    )
    averages, table = _averages(subject, config.window)
    return Section(title, text, [_scatter(subject, config.window), averages], [table])


def _near(rows: DesignTable | None, target: Target, window: float) -> Float[Tensor, "m dx"] | None:
    """Labelled designs that stand beside the candidates for a target; ``None`` without any."""
    if rows is None:
        return None
    allowed = torch.tensor([0.0 if wide else window for wide in target.is_interval])
    near = (target.residual(rows.y).abs() <= allowed).all(dim=1)
    return rows.x[near] if near.any() else None


def _scatter(subject: Exploration, window: float) -> Picture:
    tables = list(dict.fromkeys([0, len(subject.generated) - 1]))
    sets: list[tuple[str, str, Tensor]] = []
    for table in (subject.generated[place] for place in tables):
        target, rows = target_label(table), _near(subject.labelled, table.target, window)
        sets += [
            (target, _ROWS, table.designs[:0] if rows is None else rows),
            (target, _CANDIDATES, table.designs),
        ]
    figure = matplotlib.figure.Figure(figsize=(7.6, 3.6 * len(tables)), layout="constrained")
    axes = figure.subplots(len(tables), 2, sharex=True, sharey=True, squeeze=False)
    data: dict[str, tuple[str, list[object]]] = {
        name: (unit, []) for name, unit in (("target", ""), ("designs", ""), ("in_plane", "%"), ("out_of_plane", "%"))
    }
    for axis, (target, name, designs) in zip(axes.flat, sets, strict=True):
        inside, outside = (100 * strains(subject.space, designs, k).mean(dim=1) for k in (Kind.IN_PLANE, Kind.OUT_OF_PLANE))
        axis.plot(inside, outside, ".", color=BLUE if name == _CANDIDATES else GREY, markersize=2.5)
        axis.axhline(0, color="black", linewidth=0.5)
        axis.axvline(0, color="black", linewidth=0.5)
        axis.set_title(f"{target}: {len(designs):,} {name}", fontsize="medium")
        for key, values in zip(
            data, ([target] * len(designs), [name] * len(designs), inside.tolist(), outside.tolist()), strict=True
        ):
            data[key][1].extend(values)
    for axis in axes[-1]:
        axis.set_xlabel("average in-plane strain [%]")
    for axis in axes[:, 0]:
        axis.set_ylabel("average out-of-plane strain [%]")
    write_data(subject.folder / "figure_4.parquet", data)
    return Picture(
        save_figure(figure, subject.folder, "figure_4"),
        "After Figure 4 of the paper: average in-plane against average out-of-plane strain, rows of the data set on the left "
        "and candidates on the right, for the lowest and the highest target; one point is one design, and all axes are alike.",
        "Scatter plots of in-plane against out-of-plane strain for rows of the data set and for candidates.",
    )


def _averages(subject: Exploration, window: float) -> tuple[Picture, Table]:
    found = []
    for table in subject.generated:
        rows = _near(subject.labelled, table.target, window)
        found.append(_mean_strain(subject, target_label(table), _CANDIDATES, table.designs))
        if rows is not None:
            found.append(_mean_strain(subject, target_label(table), _ROWS, rows))
    _write_averages(subject, found)
    picture = Picture(
        _draw_averages(subject, found),
        "After Figure 5 of the paper: average (left) and average absolute (right) tensile or compressive and shear strain for "
        f"each target; full bars: candidates, pale: rows of the data set; lines: {100 * LEVEL:.0f} % intervals of the mean.",
        "Bars of the average and average absolute strain for each target, numbers in the table below.",
    )
    heads = ["target", "designs", "number", *(f"{size} {kind} [%]" for kind in _NAMES.values() for size in _SIZES)]
    texts = [[interval_text(*entry.means[:, k, s]) for k in range(2) for s in range(2)] for entry in found]
    lines = [[entry.target, entry.designs, entry.number, *text] for entry, text in zip(found, texts, strict=True)]
    return picture, Table(f"Mean strains with {100 * LEVEL:.0f} % intervals (bootstrap over designs).", heads, lines)


def _mean_strain(subject: Exploration, target: str, name: str, designs: Float[Tensor, "n dx"]) -> MeanStrain:
    parts = [100 * strains(subject.space, designs, kind).double() for kind in _NAMES]
    values = torch.stack([value for part in parts for value in (part.mean(dim=1), part.abs().mean(dim=1))], dim=1).numpy()
    means = np.stack([values.mean(axis=0), *mean_intervals(values, subject.seed)])
    return MeanStrain(target, name, len(designs), means.reshape(3, len(_NAMES), len(_SIZES)))


def _write_averages(subject: Exploration, found: Sequence[MeanStrain]) -> None:
    columns: dict[str, tuple[str, Sequence[object]]] = {
        name: (unit, [getattr(entry, name) for entry in found])
        for name, unit in (("target", ""), ("designs", ""), ("number", "1"))
    }
    for k, kind in enumerate(_NAMES):
        for s, size in enumerate(_SIZES):
            for i, ending in enumerate(("", "_lower", "_upper")):
                values = [float(entry.means[i, k, s]) for entry in found]
                columns[f"{kind.name.lower()}_{size.replace(' ', '_')}{ending}"] = ("%", values)
    write_data(subject.folder / "figure_5.parquet", columns)


def _draw_averages(subject: Exploration, found: Sequence[MeanStrain]) -> Path:
    figure = matplotlib.figure.Figure(figsize=(8.6, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    targets = list(dict.fromkeys(entry.target for entry in found))
    for s, axis in enumerate(axes):
        _bars(axis, found, targets, s)
        axis.axhline(0, color="black", linewidth=0.5)
        axis.set_xticks(range(len(targets)), [_short(subject, target) for target in targets])
        axis.set(xlabel="target", ylabel=f"{_SIZES[s]} strain [%]")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    return save_figure(figure, subject.folder, "figure_5")


def _short(subject: Exploration, target: str) -> str:
    """A target without the name of the property, where there is one only."""
    name = subject.properties[0].name.replace("_", " ")
    return target.removeprefix(f"{name} = ") if len(subject.properties) == 1 else target


def _bars(axis: Axes, found: Sequence[MeanStrain], targets: Sequence[str], s: int) -> None:
    """Bars of both kinds and both sets for every target; `s`: number of the average in `_SIZES`."""
    width = 0.2
    for k, (kind, color) in enumerate(zip(_NAMES.values(), (BLUE, VERMILLION), strict=True)):
        for place, (name, alpha) in enumerate(((_CANDIDATES, 1.0), (_ROWS, 0.35))):
            shown = [entry for entry in found if entry.designs == name]
            x = np.array([targets.index(entry.target) for entry in shown]) + (2 * k + place - 1.5) * width
            mean, low, high = (np.array([entry.means[i, k, s] for entry in shown]) for i in range(3))
            axis.bar(x, mean, 0.9 * width, color=color, alpha=alpha, label=f"{kind}, {name}")
            axis.errorbar(x, mean, [mean - low, high - mean], fmt="none", ecolor="black", linewidth=1)
