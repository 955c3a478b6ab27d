"""Figure 6 of the paper: designs for two targets on one map, and the pairs of them that are nearest to each other."""

from __future__ import annotations

__all__ = ["Pair", "close_pairs", "close_pairs_section"]

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.figure
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.exploration.design_space import hide_coordinates
from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.embedding import Embedding
from matdesinne.files import write_table
from matdesinne.reporting.drawing import axis_label, change_text, save_figure, target_label
from matdesinne.reporting.palette import BLUE, VERMILLION
from matdesinne.reporting.report import Picture, Section, Table
from matdesinne.space import Parameter

_INSETS = 2
"""Number of pairs that are enlarged for each two targets."""
_LISTED = 5
"""Number of pairs in the table for each two targets; the enlarged pairs are some of them."""
_IN_LINE = 3
"""Number of changes in a line below an enlarged pair."""

Places = Float[np.ndarray, "n 2"]


class Pair(NamedTuple):
    """Rows of a design in one table and of a near one in another, and their distance where the box is [-1, 1]^d."""

    first: int
    second: int
    distance: float


def close_pairs(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"], count: int) -> list[Pair]:
    """Find up to `count` closest pairs of scaled designs; each row is in one pair at most."""
    distances = torch.cdist(first, second)
    pairs: list[Pair] = []
    while len(pairs) < min(count, len(first), len(second)):
        row, column = divmod(int(distances.argmin()), len(second))
        pairs.append(Pair(row, column, float(distances[row, column])))
        distances[row], distances[:, column] = torch.inf, torch.inf
    return pairs


def close_pairs_section(exploration: Exploration) -> Section:
    """Returns the section with maps of the lowest target's designs with those of every other target, and close pairs."""
    title = "Close pairs on either side"
    if exploration.embedding is None or len(exploration.generated) < 2:
        return Section(title, "Figure 6 of the paper is left out: it needs two targets with several different designs.")
    lowest, *others = (table for table, _ in exploration.embedding.generated)
    scale = exploration.surrogate.scale
    with torch.no_grad():
        pairs = [close_pairs(scale(lowest.designs), scale(table.designs), _LISTED) for table in others]
    text = (
        f"Pairs of a design for {target_label(lowest)} and a design for another target that are nearest to each other, in "
        "coordinates scaled by the box, among the designs on the map: a small change of the design switches the property. "
        "They are pairs that sampling happens to give; there may be smaller changes."
    )
    figure = _draw(exploration, exploration.embedding, pairs)
    return Section(title, text, [figure], [_table(exploration, lowest, others, pairs)])


def _table(
    exploration: Exploration, lowest: Candidates, others: Sequence[Candidates], pairs: Sequence[Sequence[Pair]]
) -> Table:
    prop = exploration.properties[0]
    heads = ["to", "pair", "distance [half-widths]", *(f"{name} {axis_label(prop)}" for name in ("first", "second"))]
    heads += [f"change of {axis_label(parameter)}" for parameter in exploration.space.parameters]
    rows: list[list[object]] = []
    for other, closest in zip(others, pairs, strict=True):
        for number, pair in enumerate(closest, start=1):
            change = (other.designs[pair.second] - lowest.designs[pair.first]).tolist()
            values = [float(lowest.mean[pair.first, 0]), float(other.mean[pair.second, 0])]
            rows.append([target_label(other), number, pair.distance, *values, *change])
    return Table("The closest pairs; changes are those from the first to the second design of a pair.", heads, rows)


def _draw(exploration: Exploration, embedding: Embedding, pairs: Sequence[Sequence[Pair]]) -> Picture:
    first, *others = embedding.generated
    figure = matplotlib.figure.Figure(figsize=(5.4 * len(others), 8.0), layout="constrained")
    grid = figure.add_gridspec(2, _INSETS * len(others), height_ratios=[2, 1.1])
    for panel, (second, closest) in enumerate(zip(others, pairs, strict=True)):
        columns = range(_INSETS * panel, _INSETS * (panel + 1))
        axis = figure.add_subplot(grid[0, columns.start : columns.stop])
        insets = [figure.add_subplot(grid[1, column]) for column in columns]
        _draw_panel(exploration, axis, insets, (first, second), closest)
    _write(exploration, embedding)
    return Picture(
        save_figure(figure, exploration.folder, "figure_6"),
        "After Figure 6 of the paper: candidates for the lowest target and for each other target on one map (UMAP of the "
        "scaled coordinates, the same for all panels). The zooms show close pairs with the change of every knob from the "
        "lowest target to the other one, in % of the reference or in its unit.",
        "Maps of designs for two targets each, with enlarged close pairs; the table below lists their changes.",
    )


def _write(exploration: Exploration, embedding: Embedding) -> None:
    tables = [table for table, _ in embedding.generated]
    places = np.concatenate([place for _, place in embedding.generated])
    designs = torch.cat([table.designs for table in tables])
    columns = {
        "target": ("", [target_label(table) for table in tables for _ in table.designs]),
        "umap_1": ("1", places[:, 0].tolist()),
        "umap_2": ("1", places[:, 1].tolist()),
    }
    columns |= {p.name: (p.unit, designs[:, i].tolist()) for i, p in enumerate(exploration.space.parameters)}
    write_table(exploration.folder / "figure_6.parquet", columns)


def _draw_panel(
    exploration: Exploration,
    axis: Axes,
    insets: Sequence[Axes],
    sets: Sequence[tuple[Candidates, Places]],
    pairs: Sequence[Pair],
) -> None:
    """Draw a map of two tables, and enlarge the closest pairs whose surroundings do not overlap."""
    (first, first_places), (second, second_places) = sets
    names = [target_label(first), target_label(second)]
    _scatter(axis, (first_places, second_places), 5)
    axis.legend(axis.collections, names, fontsize="small", markerscale=3, loc="upper right")
    axis.set_title(" and ".join(names), fontsize="medium")
    hide_coordinates(axis)
    least = 0.05 * float(np.ptp(axis.get_xlim()))
    squares: list[Bbox] = []
    for pair in pairs:
        ends = np.stack([first_places[pair.first], second_places[pair.second]])
        reach = max(float(np.ptp(ends, axis=0).max()), least)
        centre = ends.mean(axis=0)
        square = Bbox([centre - reach, centre + reach])
        if len(squares) == len(insets) or any(square.overlaps(other) for other in squares):
            continue
        inset = insets[len(squares)]
        squares.append(square)
        axis.add_patch(Rectangle((square.x0, square.y0), square.width, square.height, fill=False, linewidth=1))
        axis.annotate(str(len(squares)), (square.x1, square.y1), fontweight="bold")
        inset.set(xlim=square.intervalx, ylim=square.intervaly, xticks=[], yticks=[])
        _scatter(inset, (first_places, second_places), 16)
        inset.plot(*ends.T, "-o", color="black", markerfacecolor="none", markersize=9, linewidth=1)
        change = _changes(exploration.space.parameters, second.designs[pair.second] - first.designs[pair.first])
        inset.set_title(str(len(squares)), fontsize="medium", fontweight="bold")
        inset.set_xlabel(change, fontsize="small")
    for inset in insets[len(squares) :]:
        inset.set_axis_off()


def _scatter(axis: Axes, places: tuple[Places, Places], size: float) -> None:
    for each, color, marker in zip(places, (BLUE, VERMILLION), ("o", "^"), strict=True):
        axis.scatter(each[:, 0], each[:, 1], s=size, color=color, marker=marker, linewidths=0)


def _changes(parameters: Sequence[Parameter], change: Float[Tensor, " dx"]) -> str:
    """Returns the changes of all parameters, some in a line."""
    texts = [change_text(parameter, value) for parameter, value in zip(parameters, change.tolist(), strict=True)]
    return "\n".join(", ".join(texts[first : first + _IN_LINE]) for first in range(0, len(texts), _IN_LINE))
