"""Drawings of cells: a layer from above, and one cell in perspective with its lattice parameters and the field."""

from __future__ import annotations

__all__ = ["atom_handles", "draw_angles", "draw_cell", "draw_field", "draw_layer", "draw_vectors", "show_whole"]

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from matdesinne.reporting.drawing import printed_name
from matdesinne.reporting.palette import BLUE, VERMILLION

if TYPE_CHECKING:
    import ase

_AZIMUTH, _ELEVATION = np.deg2rad(8.0), np.deg2rad(32.0)
"""Direction from which a cell in perspective is seen."""
_RADIUS = 0.4
"""Radius of a drawn atom, relative to its covalent radius."""
_ANGLES = {"alpha": (1, 2), "beta": (0, 2), "gamma": (0, 1)}
"""The two cell vectors that enclose each angle."""

Points = Float[np.ndarray, "n 3"]


def _project(points: Points) -> Float[np.ndarray, "n 2"]:
    """Returns the places of points on the paper; parallel lines stay parallel."""
    (cos_a, sin_a), (cos_e, sin_e) = ((np.cos(angle), np.sin(angle)) for angle in (_AZIMUTH, _ELEVATION))
    return points @ np.array([[cos_a, sin_a, 0.0], [-sin_a * sin_e, cos_a * sin_e, cos_e]]).T


def draw_layer(atoms: ase.Atoms, axis: Axes) -> None:
    """Draw three by three cells of a layer, seen from above, with the borders of all cells."""
    from ase.visualize.plot import plot_atoms

    plot_atoms(atoms.repeat((3, 3, 1)), axis, radii=_RADIUS, show_unit_cell=2)


def atom_handles(symbols: Sequence[str]) -> list[Line2D]:
    """Returns the entries of a legend of the chemical elements, in the colours of `draw_layer` and `draw_cell`."""
    from ase.data import atomic_numbers
    from ase.data.colors import jmol_colors

    style = {"linestyle": "none", "marker": "o", "markersize": 8, "markeredgecolor": "black"}
    return [
        Line2D([], [], markerfacecolor=jmol_colors[atomic_numbers[symbol]], label=symbol, **style)  # type: ignore[arg-type]
        for symbol in dict.fromkeys(symbols)
    ]


def draw_cell(atoms: ase.Atoms, axis: Axes, color: str = "black", style: str = "-", with_atoms: bool = True) -> None:
    """Draw the edges of a cell in perspective, and its atoms, the nearest on top."""
    from ase.data import covalent_radii
    from ase.data.colors import jmol_colors

    cell = np.asarray(atoms.cell)
    for k in range(3):
        others = [cell[j] for j in range(3) if j != k]
        for first, second in product((0, 1), (0, 1)):
            start = first * others[0] + second * others[1]
            axis.plot(*_project(np.stack([start, start + cell[k]])).T, style, color=color, linewidth=1, zorder=1)
    if with_atoms:
        depth = atoms.positions @ np.array([np.sin(_AZIMUTH), -np.cos(_AZIMUTH), 0.0])
        for row, place in enumerate(_project(atoms.positions)):
            number = atoms.numbers[row]
            colors = {"facecolor": jmol_colors[number], "edgecolor": "black", "zorder": 3 + 0.01 * depth[row]}
            axis.add_patch(Circle(tuple(place), _RADIUS * covalent_radii[number], **colors))


def draw_vectors(atoms: ase.Atoms, axis: Axes) -> None:
    """Draw the cell vectors as arrows from the origin with their names."""
    for name, vector in zip("abc", np.asarray(atoms.cell), strict=True):
        start, end = _project(np.stack([np.zeros(3), vector]))
        _draw_arrow(axis, start, end, "black")
        middle, aside = (start + end) / 2, np.array([end[1] - start[1], start[0] - end[0]]) / np.linalg.norm(end - start)
        place = middle + 0.45 * aside * (1 if name == "a" else -1)
        axis.text(place[0], place[1], name, ha="center", va="center", style="italic", fontsize=12)


def draw_angles(atoms: ase.Atoms, axis: Axes, radius: float = 1.7) -> None:
    """Draw an arc for every angle of the cell at the origin, with its symbol."""
    unit = np.asarray(atoms.cell) / np.linalg.norm(atoms.cell, axis=1, keepdims=True)
    for name, (i, j) in _ANGLES.items():
        angle = np.arccos(unit[i] @ unit[j])
        fraction = np.linspace(0.0, 1.0, 31)[:, np.newaxis]
        arc = (np.sin((1 - fraction) * angle) * unit[i] + np.sin(fraction * angle) * unit[j]) / np.sin(angle)
        axis.plot(*_project(radius * arc).T, color=BLUE, linewidth=1.2, zorder=4)
        place = _project((0.55 if name == "gamma" else 1.35) * radius * arc[15:16])[0]
        axis.text(place[0], place[1], printed_name(name), ha="center", va="center", color=BLUE, fontsize=12, zorder=5)


def draw_field(atoms: ase.Atoms, axis: Axes, field: float, color: str = VERMILLION, side: int = 1) -> None:
    """Draw the electric field, along z, as an arrow to the right (1) or left (-1) of the cell, 4 angstrom for 1 V/angstrom."""
    corners = np.array(list(product((0, 1), repeat=3))) @ np.asarray(atoms.cell)
    places = _project(corners)
    edge = places[:, 0].max() if side > 0 else places[:, 0].min()
    middle = np.array([edge + 1.2 * side, places[:, 1].mean()])
    if field != 0:
        half = np.array([0.0, 2.0 * field])
        _draw_arrow(axis, middle - half, middle + half, color)
    text, place = f"field\n{field:+.2f} V/Å".replace("-", "−"), middle + np.array([0.4 * side, 0.0])
    axis.text(place[0], place[1], text, color=color, ha="left" if side > 0 else "right", va="center", fontsize=8)


def _draw_arrow(axis: Axes, start: Float[np.ndarray, " 2"], end: Float[np.ndarray, " 2"], color: str) -> None:
    arrow = {"arrowstyle": "-|>", "color": color, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
    axis.update_datalim([start, end])
    axis.annotate("", tuple(end), tuple(start), arrowprops=arrow, zorder=2)


def show_whole(axis: Axes, margin: float = 0.8) -> None:
    """Give an axis of cells equal scales and no frame, and let it end this far, in angstrom, from what is drawn."""
    axis.set_aspect("equal")
    axis.autoscale_view()
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    axis.set(xlim=(left - margin, right + margin), ylim=(bottom - margin, top + margin))
    axis.set_axis_off()
