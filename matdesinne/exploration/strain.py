"""Figures 4 and 5 of the paper: the strains of the cells of the designs."""

from __future__ import annotations

__all__ = ["StrainKind", "strain_section"]

from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import pandas
import torch

from matdesinne.candidates import Candidates
from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.shear import draw_floor_share, floor_shares
from matdesinne.exploration.strain_distributions import draw_distributions, mean_table, tail_sentences, tail_table
from matdesinne.exploration.strain_kinds import AVERAGES, CANDIDATES, ROWS, DesignSet, StrainKind, average_strain
from matdesinne.files import write_table
from matdesinne.reporting.changes import strain_sentence
from matdesinne.reporting.drawing import printed_name, printed_unit, save_figure, target_label
from matdesinne.reporting.palette import BLUE, VERMILLION
from matdesinne.reporting.report import Picture, Section
from matdesinne.structures import CELL_PARAMETERS


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
    cell = [space.parameters[space.index(name)] for name in CELL_PARAMETERS]
    text = (
        "Strain is the relative deviation of a lattice parameter from that of the reference cell ("
        + ", ".join(f"{printed_name(p.name)} = {p.reference:g} {printed_unit(p.unit)}" for p in cell)
        + "). In the plane: average over a, b and γ; out of the plane: over c, α and β; tensile or compressive: "
        "over a, b and c; shear: over α, β and γ.\n\n"
        f"The candidates for a value are shown beside the rows of the data set whose label is within {window:g} "
        f"{exploration.properties[0].unit} of it, those for a range beside the rows whose label is in the range."
    )
    sets = [_sets(exploration, table, window) for table in exploration.generated]
    flat = [group for rows, candidates in sets for group in (candidates, rows)]
    text += f"\n\n{tail_sentences(exploration, flat)}"
    if space.layer is not None:
        text += "".join(f"\n\nFor {target_label(table)}: {strain_sentence(table)}" for table in exploration.generated)
    figures = [_draw_planes(exploration, sets), draw_distributions(exploration, flat)]
    if exploration.surrogate.properties[0].floor is not None and space.bounded:
        shares = floor_shares(exploration)
        figures.append(draw_floor_share(exploration, shares))
        text += f" {_floor_sentence(exploration, shares)}"
    return Section(title, text, figures, [mean_table(exploration, flat), tail_table(exploration, flat)])


def _floor_sentence(exploration: Exploration, shares: pandas.DataFrame) -> str:
    prop = exploration.surrogate.properties[0]
    first, last = shares.iloc[0], shares.iloc[-1]
    return (
        f"Of uniform designs with an average absolute shear strain from {first.shear_from:g} to {first.shear_to:g} %, "
        f"{100 * first.share:.0f} % have a {printed_name(prop.name)} of at most {prop.floor:g}{prop.suffix}; from "
        f"{last.shear_from:g} to {last.shear_to:g} %, {100 * last.share:.0f} % have."
    )


def _sets(exploration: Exploration, table: Candidates, window: float) -> tuple[DesignSet, DesignSet]:
    """Returns the labelled rows near the target of a table, and the table itself."""
    rows = table.designs[:0]
    if exploration.labelled is not None:
        allowed = torch.tensor([0.0 if wide else window for wide in table.target.is_interval])
        near = (table.target.residual(exploration.labelled.y).abs() <= allowed).all(dim=1)
        rows = exploration.labelled.x[near]
    return DesignSet(target_label(table), ROWS, rows), DesignSet(target_label(table), CANDIDATES, table.designs)


def _draw_planes(exploration: Exploration, sets: Sequence[tuple[DesignSet, DesignSet]]) -> Picture:
    """Draw Figure 4: the in-plane and out-of-plane strains of the designs for the lowest and the highest target."""
    shown = sets if len(sets) == 1 else [sets[0], sets[-1]]
    figure = matplotlib.figure.Figure(figsize=(8.6, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    frames = []
    for axis, groups in zip(axes, zip(*shown, strict=True), strict=True):
        for group, color in zip(groups, (BLUE, VERMILLION), strict=False):
            planes = (StrainKind.IN_PLANE, StrainKind.OUT_OF_PLANE)
            inside, outside = (average_strain(exploration.space, group.designs, kind, AVERAGES[0]) for kind in planes)
            label = f"{group.target}: {len(group.designs):,}"
            axis.scatter(inside, outside, s=5, color=color, alpha=0.5, linewidths=0, label=label)
            columns = {"target": group.target, "designs": group.name, "in_plane": inside, "out_of_plane": outside}
            frames.append(pandas.DataFrame(columns))
        axis.axhline(0, color="black", linewidth=0.5)
        axis.axvline(0, color="black", linewidth=0.5)
        axis.set(title=groups[0].name, xlabel="average in-plane strain [%]")
        axis.legend(fontsize="small", markerscale=3, loc="upper right")
    axes[0].set_ylabel("average out-of-plane strain [%]")
    _write(exploration.folder / "figure_4.parquet", pandas.concat(frames))
    return Picture(
        save_figure(figure, exploration.folder, "figure_4"),
        "After Figure 4 of the paper: average in-plane and average out-of-plane strain of the rows of the data set (left) and "
        "of the candidates (right), for the lowest and the highest target in one panel. Each point is one design.",
        "Scatter plots of in-plane against out-of-plane strain for rows of the data set and for candidates.",
    )


def _write(path: Path, frame: pandas.DataFrame) -> None:
    units = {"target": "", "designs": ""}
    write_table(path, {str(name): (units.get(str(name), "%"), column.to_numpy()) for name, column in frame.items()})
