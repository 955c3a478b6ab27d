"""Figure 2a of the paper: the cell of the reference design and the knobs that change it."""

from __future__ import annotations

__all__ = ["draw_knobs"]

import matplotlib.figure
from matplotlib.axes import Axes

from matdesinne.exploration.designs import Exploration
from matdesinne.reporting.cells import atom_handles, draw_angles, draw_cell, draw_field, draw_layer, draw_vectors, show_whole
from matdesinne.reporting.drawing import printed_name, printed_unit, save_figure
from matdesinne.reporting.palette import SKY
from matdesinne.reporting.report import Picture
from matdesinne.space import DesignSpace
from matdesinne.structures import CELL_PARAMETERS

_FIELD = "electric_field"


def draw_knobs(exploration: Exploration) -> Picture | None:
    """Draw the reference cell with its lattice parameters and the field, and list the range of each knob.

    Returns:
        The picture, or ``None`` if designs are no crystals.
    """
    prototype, space = exploration.surrogate.prototype, exploration.space
    if prototype is None or not space.has(CELL_PARAMETERS):
        return None
    atoms = prototype.atoms(space.design(space.reference.tolist()))
    figure = matplotlib.figure.Figure(figsize=(9.6, 4.2), layout="constrained")
    side, top, knobs = figure.subplots(1, 3, width_ratios=[0.8, 1.2, 1.2])
    draw_cell(atoms, side)
    draw_vectors(atoms, side)
    draw_angles(atoms, side)
    if _FIELD in space.names:
        draw_field(atoms, side, space.parameters[space.index(_FIELD)].upper)
    show_whole(side)
    side.set_title("the cell", fontsize="medium")
    draw_layer(atoms, top)
    top.set_axis_off()
    top.set_title("the layer from above, 3 × 3 cells", fontsize="medium")
    top.legend(handles=atom_handles(prototype.symbols), loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, frameon=False)
    _list_knobs(knobs, space)
    return Picture(
        save_figure(figure, exploration.folder, "figure_2_cell"),
        "After Figure 2a of the paper: the unstrained cell with the knobs of a design, the range of each, and its value in the "
        "unstrained cell (line).",
        "A cell with its lengths, angles and the field, the layer from above, and the range of every knob.",
    )


def _list_knobs(axis: Axes, space: DesignSpace) -> None:
    """Draw the range of each bounded knob as a bar of equal length between its bounds, with a line at the reference."""
    for place, parameter in enumerate(reversed(space.parameters)):
        share = (parameter.reference - parameter.lower) / (parameter.upper - parameter.lower)
        axis.plot([0, 1], [place, place], color=SKY, linewidth=7, solid_capstyle="butt")
        axis.plot([share, share], [place - 0.2, place + 0.2], color="black", linewidth=1.5)
        for x, value, side in (
            (0, parameter.lower, "left"),
            (1, parameter.upper, "right"),
            (share, parameter.reference, "center"),
        ):
            axis.text(x, place - 0.42, f"{value:.4g}".replace("-", "−"), ha=side, va="center", fontsize="small")
    names = [f"{printed_name(p.name)} [{printed_unit(p.unit)}]" for p in reversed(space.parameters)]
    axis.set_yticks(range(len(names)), names)
    axis.set(xticks=[], xlim=(-0.02, 1.02), ylim=(-0.8, len(names) - 0.5))
    axis.set_title("the knobs and their ranges", fontsize="medium")
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
