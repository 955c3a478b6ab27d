"""Figure 5 of the paper: distributions of tensile and shear strain for each target."""

from __future__ import annotations

__all__ = ["draw_distributions", "mean_table", "tail_sentences", "tail_table"]

from collections.abc import Sequence

import matplotlib.figure
import numpy as np
import pandas
from matplotlib.axes import Axes

from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.strain_kinds import AVERAGES, CANDIDATES, DesignSet, StrainKind, average_strain
from matdesinne.files import write_table
from matdesinne.reporting.drawing import bin_edges, save_figure
from matdesinne.reporting.intervals import LEVEL, interval_columns, interval_texts
from matdesinne.reporting.palette import CYCLE
from matdesinne.reporting.report import Picture, Table

_KINDS = (StrainKind.TENSILE, StrainKind.SHEAR)
_BINS = 23
_SHEARED = 5.0
"""Shear strain in percent above which designs are counted, as in the paper."""
_TAILS = (0.01, 0.99)
"""Quantiles that say how far the distribution of the average tensile strain reaches."""


def draw_distributions(exploration: Exploration, sets: Sequence[DesignSet]) -> Picture:
    """Draw the distributions of the average and average absolute tensile and shear strain in four panels."""
    frame = _averages(exploration, sets)
    units = {"target": "", "designs": ""}
    columns = {str(name): (units.get(str(name), "%"), column.to_numpy()) for name, column in frame.items()}
    write_table(exploration.folder / "figure_5.parquet", columns)
    figure = matplotlib.figure.Figure(figsize=(8.6, 6.4), layout="constrained")
    panels = [(kind, average) for average in AVERAGES for kind in _KINDS]
    axes = list(figure.subplots(2, 2).flat)
    for axis, letter, (kind, average) in zip(axes, "abcd", panels, strict=True):
        _draw_panel(axis, frame, _column(kind, average))
        axis.set(xlabel=f"{average} {kind.label} strain [%]", ylabel="density [1/%]")
        axis.set_title(letter, loc="left", fontweight="bold")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    return Picture(
        save_figure(figure, exploration.folder, "figure_5"),
        "After Figure 5 of the paper: distributions of the average (top) and average absolute (bottom) tensile (left; "
        "negative: compressive) and shear strain (right) for each target. Lines: candidates; dashed: rows of the data set.",
        "Histograms of the average and average absolute strains for each target; the tables below list the numbers.",
    )


def _averages(exploration: Exploration, sets: Sequence[DesignSet]) -> pandas.DataFrame:
    """Returns the four average strains of every design."""
    frames = []
    for group in sets:
        columns: dict[str, object] = {"target": group.target, "designs": group.name}
        for kind in _KINDS:
            for average in AVERAGES:
                columns[_column(kind, average)] = average_strain(exploration.space, group.designs, kind, average)
        frames.append(pandas.DataFrame(columns))
    return pandas.concat(frames, ignore_index=True)


def _column(kind: StrainKind, average: str) -> str:
    return f"{kind.name.lower()}_{average.replace(' ', '_')}"


def _draw_panel(axis: Axes, frame: pandas.DataFrame, column: str) -> None:
    bins = bin_edges(float(frame[column].min()), float(frame[column].max()), _BINS)
    colors = dict(zip(frame["target"].unique(), CYCLE * 9, strict=False))
    for (target, name), group in frame.groupby(["target", "designs"], sort=False):
        style = {"linewidth": 1.8} if name == CANDIDATES else {"linewidth": 0.9, "linestyle": "--"}
        label = f"{target}: {len(group):,} {name}"
        axis.hist(group[column], bins=bins, density=True, histtype="step", color=colors[target], label=label, **style)
    if bins[0] < 0 < bins[-1]:
        axis.axvline(0, color="black", linewidth=0.5)


def mean_table(exploration: Exploration, sets: Sequence[DesignSet]) -> Table:
    """Returns the means of the four average strains with their intervals, one row for each set with designs."""
    columns = [(kind, average) for kind in _KINDS for average in AVERAGES]
    heads = ["target", "designs", "number", *(f"{average} {kind.label} [%]" for kind, average in columns)]
    rows = []
    for group in filter(lambda group: len(group.designs) > 0, sets):
        means = []
        for kind, average in columns:
            values = average_strain(exploration.space, group.designs, kind, average)[:, np.newaxis]
            means += interval_texts(pandas.DataFrame(interval_columns("mean", values, exploration.seed)), "mean")
        rows.append([group.target, group.name, len(group.designs), *means])
    return Table(f"Mean strains with {100 * LEVEL:.0f} % intervals (bootstrap over designs).", heads, rows)


def _tails(exploration: Exploration, group: DesignSet) -> tuple[float, float, float, float, float]:
    """Returns the shares with much shear, two quantiles of the average tensile strain and the largest, all in percent."""
    net, absolute = (average_strain(exploration.space, group.designs, StrainKind.SHEAR, average) for average in AVERAGES)
    tensile = average_strain(exploration.space, group.designs, StrainKind.TENSILE, AVERAGES[0])
    low, high = np.quantile(tensile, _TAILS)
    shares = [float(100 * (abs(shear) > _SHEARED).mean()) for shear in (absolute, net)]
    return shares[0], shares[1], float(low), float(high), float(tensile.max())


def tail_table(exploration: Exploration, sets: Sequence[DesignSet]) -> Table:
    """Returns the share of designs with much shear, and how far the average tensile strain reaches, for sets with designs."""
    shown = [group for group in sets if len(group.designs) > 0]
    rows = [[group.target, group.name, len(group.designs), *_tails(exploration, group)] for group in shown]
    quantiles = [f"{100 * q:.0f} % of average tensile [%]" for q in _TAILS]
    shares = [f"average absolute shear > {_SHEARED:g} % [%]", f"|average shear| > {_SHEARED:g} % [%]"]
    heads = ["target", "designs", "number", *shares, *quantiles, "largest [%]"]
    return Table("Designs with much shear, and the ends of the distribution of the average tensile strain.", heads, rows)


def tail_sentences(exploration: Exploration, sets: Sequence[DesignSet]) -> str:
    """Returns what `tail_table` says of the candidates for each target as sentences."""
    sentences = []
    for group in sets:
        if group.name == CANDIDATES and len(group.designs) > 0:
            share, net, low, high, _ = _tails(exploration, group)
            sentences.append(
                f"Of the candidates for {group.target}, {share:.0f} % have an average absolute shear strain above "
                f"{_SHEARED:g} % and {net:.0f} % an average one beyond ±{_SHEARED:g} %; "
                f"{100 * (_TAILS[1] - _TAILS[0]):.0f} % have an average tensile strain from {low:.1f} to {high:.1f} %."
            )
    return " ".join(sentences)
