"""Figures of transitions, and the structures before and after them."""

from __future__ import annotations

__all__ = ["draw_remote", "draw_shortest", "draw_small", "draw_structures", "structure_pairs", "write_structures"]

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.figure
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.exploration.transitions.transition import Transitions
from matdesinne.exports import cif_text
from matdesinne.files import atomic_path, write_table, write_text
from matdesinne.reporting.cells import atom_handles, draw_cell, draw_field, show_whole
from matdesinne.reporting.drawing import axis_label, change_text, printed_name, save_figure
from matdesinne.reporting.palette import BLUE, CYCLE, GREY, SKY, VERMILLION
from matdesinne.reporting.report import Picture
from matdesinne.structures import CELL_PARAMETERS, Prototype
from matdesinne.surrogates.base import Surrogate

if TYPE_CHECKING:
    import ase

_CURVE = 33
"""Designs on the line through a transition."""
_BAND = 0.9
"""Probability that the band about a curve holds the property."""
_DRAWN = 3
"""Number of transitions whose structures are drawn."""
_SEEN = 0.4
"""Size in half-widths of the box of a change that the eye sees in a cell."""


def draw_small(small: Transitions, best: Transitions, surrogate: Surrogate, folder: Path) -> Picture:
    """Draw how many small transitions there are up to a size, and the surrogate's property along the best of them."""
    figure = matplotlib.figure.Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for color, knob in zip(CYCLE * 9, sorted(set(small.knobs), key=small.knobs.count, reverse=True), strict=False):
        sizes = 100 * small.sizes(knob).sort().values
        left.step(sizes, range(1, len(sizes) + 1), where="post", color=color, label=printed_name(knob))
    left.set(xlabel="change of one knob [% of half its range]", ylabel="distinct transitions up to this change", xlim=(0, None))
    left.legend(fontsize="small")
    _draw_lines(right, best, surrogate, folder)
    return Picture(
        save_figure(figure, folder, "transitions"),
        "Left: number of distinct transitions up to a change of one knob. Right: the property along the changed knob of the "
        f"best {len(best)}, from before (circle) to after (square), with the {100 * _BAND:.0f} % interval of the first. "
        "Dotted: the floor. The paper shows single examples with changes of 6 to 7 % of a lattice constant.",
        "Cumulative numbers of transitions by knob, and curves of the property across the best transitions.",
    )


def _draw_lines(axis: Axes, best: Transitions, surrogate: Surrogate, folder: Path) -> None:
    fraction = torch.linspace(-0.5, 1.5, _CURVE)
    line = best.before[:, None] + fraction[None, :, None] * (best.after - best.before)[:, None]
    y, std = surrogate.predict_many(line.flatten(0, 1).clamp(best.space.lower, best.space.upper))
    half_width = surrogate.half_width(std, _BAND)[:, 0].reshape(len(best), _CURVE)
    y = y[:, 0].reshape(len(best), _CURVE)
    sizes = 100 * best.size
    for row, color in zip(range(len(best)), CYCLE * 9, strict=False):
        x = fraction * sizes[row]
        if row == 0:
            axis.fill_between(x, y[row] - half_width[row], y[row] + half_width[row], color=SKY, alpha=0.35, linewidth=0)
        axis.plot(x, y[row], color=color, linewidth=1)
        axis.plot(0.0, best.value[row, 0], "o", color=color, markersize=4)
        axis.plot(sizes[row], best.value[row, 1], "s", color=color, markersize=4)
    axis.axhline(best.levels.threshold, color="black", linestyle=":", linewidth=1)
    axis.set(xlabel="change from the start [% of half the knob's range]", ylabel=axis_label(best.prop))
    number = torch.arange(1, len(best) + 1).repeat_interleave(_CURVE)
    write_table(
        folder / "transitions_lines.parquet",
        {
            "transition": ("1", number.tolist()),
            "change": ("% of half the range", (fraction[None] * sizes[:, None]).flatten().tolist()),
            best.prop.name: (best.prop.unit, y.flatten().tolist()),
            f"{best.prop.name}_half_width": (best.prop.unit, half_width.flatten().tolist()),
        },
    )


def draw_structures(best: Transitions, prototype: Prototype, folder: Path) -> Picture:
    """Draw the cell before the first few transitions, and the cell after them with the change drawn many times as large."""
    pairs = structure_pairs(best.take(torch.arange(min(_DRAWN, len(best)))), prototype)
    figure = matplotlib.figure.Figure(figsize=(3.4 * len(pairs), 4.8), layout="constrained")
    axes = figure.subplots(1, len(pairs), squeeze=False)[0]
    for row, (axis, (before, after)) in enumerate(zip(axes, pairs, strict=True)):
        seen, factor = _magnified(best, row, prototype)
        draw_cell(before, axis, GREY, "--", with_atoms=False)
        draw_cell(seen, axis, BLUE)
        knob = best.space.index(best.knobs[row])
        change = float(best.after[row, knob] - best.before[row, knob])
        if best.knobs[row] not in CELL_PARAMETERS:
            draw_field(before, axis, float(best.before[row, knob]), GREY, -1)
            draw_field(after, axis, float(best.after[row, knob]), BLUE)
        show_whole(axis)
        gaps = " to ".join(f"{atoms.info[best.prop.name]:.2f}" for atoms in (before, after)).replace("-", "−")
        times = f", drawn {factor} times" if factor > 1 else ""
        text = change_text(best.space.parameters[knob], change)
        axis.set_title(f"{row + 1}: {text}{times}\n{printed_name(best.prop.name)} {gaps}{best.prop.suffix}", fontsize=9)
    figure.legend(handles=atom_handles(prototype.symbols), loc="outside lower center", ncols=9, frameon=False)
    return Picture(
        save_figure(figure, folder, "transitions_structures"),
        f"The cell before (grey, dashed) and after (blue, with its atoms) the best {len(pairs)} transitions. The changes are "
        "so small that they are drawn many times as large; the title says how many times, and the true change.",
        "Cells before and after transitions, one over the other.",
    )


def _magnified(transitions: Transitions, row: int, prototype: Prototype) -> tuple[ase.Atoms, int]:
    """Returns the structure after a transition with its change some times as large, and how many times."""
    start = transitions.before[row].double()
    change = transitions.after[row].double() - start
    moves = transitions.knobs[row] in CELL_PARAMETERS
    factor = max(1, round(_SEEN / float(transitions.size[row]))) if moves else 1
    while True:
        try:
            return prototype.atoms(transitions.space.design((start + factor * change).tolist())), factor
        except ConfigError:  # the angles enclose no volume
            if factor == 1:
                raise
            factor //= 2


def structure_pairs(transitions: Transitions, prototype: Prototype) -> list[tuple[ase.Atoms, ase.Atoms]]:
    """Returns the structures before and after each transition; ``info`` has its number, the end, the prediction and units."""
    prototype.check(transitions.space)
    prop = transitions.prop
    units = {p.name: p.unit for p in transitions.space.parameters if p.name not in CELL_PARAMETERS}
    unit_text = ", ".join(f"{name}: {unit}" for name, unit in {**units, prop.name: prop.unit}.items())

    def structure(row: int, end: int) -> ase.Atoms:
        design = (transitions.before, transitions.after)[end][row].tolist()
        atoms = prototype.atoms(transitions.space.design(design))
        atoms.info |= {
            "transition": row + 1,
            "end": ("before", "after")[end],
            prop.name: transitions.value[row, end].item(),
            f"{prop.name}_std": transitions.std[row, end].item(),
            "units": unit_text,
        }
        return atoms

    return [(structure(row, 0), structure(row, 1)) for row in range(len(transitions))]


def write_structures(transitions: Transitions, prototype: Prototype, folder: Path) -> None:
    """Write ``transitions.extxyz``, each start followed by its end, and a folder ``transitions`` of CIF files."""
    from ase.io import write

    structures = [atoms for pair in structure_pairs(transitions, prototype) for atoms in pair]
    with atomic_path(folder / "transitions.extxyz") as temporary:
        write(temporary, structures, format="extxyz")
    shutil.rmtree(folder / "transitions", ignore_errors=True)
    for atoms in structures:
        remarks = [f"{key} = {value}" for key, value in atoms.info.items()]
        name = f"{atoms.info['transition']:03d}_{atoms.info['end']}.cif"
        write_text(folder / "transitions" / name, cif_text(atoms, remarks))


def draw_shortest(shortest: Transitions, shown: Sequence[str], folder: Path) -> Picture:
    """Draw the sizes of the shortest transitions for some sets of knobs."""
    figure = matplotlib.figure.Figure(figsize=(7, 0.32 * len(shown) + 1.2), layout="constrained")
    axis = figure.subplots()
    levels = torch.tensor([0.1, 0.5, 0.9])
    for place, name in enumerate(reversed(shown)):
        low, median, high = (100 * shortest.sizes(name)).quantile(levels).tolist()
        axis.plot([low, high], [place, place], color=SKY if "+" in name else GREY, linewidth=5, solid_capstyle="butt")
        axis.plot(median, place, "o", color=BLUE)
    names = [", ".join(map(printed_name, name.split("+"))) for name in reversed(shown)]
    axis.set_yticks(range(len(shown)), names, fontsize="small")
    axis.set(xlabel="shortest change across the floor [% of a half-width of the box]", xlim=(0, None))
    return Picture(
        save_figure(figure, folder, "transitions_by_knobs"),
        "Distance of generated designs from the other side if one knob (grey) or several (blue) may change: median (dot) and "
        "10 to 90 % (bar) of the designs that have a transition. After the paper's search for transition paths in Figure 6.",
        "Bars of the size of the shortest transition for each set of knobs.",
    )


def draw_remote(surrogate: Surrogate, designs: Float[Tensor, "n dx"], distance: Float[Tensor, " n"], folder: Path) -> Picture:
    """Draw the distance of designs from the nearest transition against their property."""
    prop, y = surrogate.properties[0], surrogate.predict_many(designs)[0][:, 0]
    figure = matplotlib.figure.Figure(figsize=(5.5, 3.8), layout="constrained")
    axis = figure.subplots()
    known = distance.isfinite()
    axis.scatter(y[known], distance[known], s=8, color=BLUE, linewidths=0, alpha=0.6)
    axis.axvline(prop.floor or 0.0, color=VERMILLION, linestyle=":", linewidth=1)
    axis.set(xlabel=axis_label(prop), ylabel="distance to the nearest transition\n[half-widths of the box]", ylim=(0, None))
    return Picture(
        save_figure(figure, folder, "remote"),
        "Distance of generated designs from the nearest design at the floor (dotted) if all knobs may change. Designs farther "
        "away are safer against a transition. Not in the paper.",
        "Scatter plot of the distance to the nearest transition against the property.",
    )
