"""Figure 6 of the paper: designs of different properties side by side, and the closest of them."""

from __future__ import annotations

__all__ = ["Pair", "close_pairs", "pairs"]

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.figure
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from omegaconf import DictConfig
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.exploration.design_space import bare
from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.embedding import Embedding
from matdesinne.reporting.drawing import axis_label, save_figure, target_label, write_data
from matdesinne.reporting.palette import BLUE, VERMILLION
from matdesinne.reporting.report import Picture, Section, Table

_INSETS = 2
"""Pairs that are enlarged for each two targets."""
_LISTED = 5
"""Pairs in the table for each two targets, from which those are taken."""

Places = Float[np.ndarray, "n 2"]
Square = tuple[float, float, float]


@dataclass(frozen=True)
class Pair:
    """A design of one table and the design of another that is near to it.

    Args:
        first: row in the first table.
        second: row in the second table.
        distance: between them in coordinates in which the box is [-1, 1]^d.
    """

    first: int
    second: int
    distance: float


def close_pairs(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"], count: int) -> list[Pair]:
    """The closest pairs, no row in two of them.

    Args:
        first: scaled designs.
        second: scaled designs.
        count: how many at most.
    """
    distances = torch.cdist(first, second)
    found: list[Pair] = []
    while len(found) < min(count, len(first), len(second)):
        row, column = divmod(int(distances.argmin()), len(second))
        found.append(Pair(row, column, float(distances[row, column])))
        distances[row], distances[:, column] = torch.inf, torch.inf
    return found


def pairs(subject: Exploration, config: DictConfig) -> Section:
    """Maps of the lowest target's designs with those of every other target, and the closest pairs of both."""
    title = "Close pairs on either side"
    if subject.embedding is None or len(subject.generated) < 2:
        return Section(title, "Figure 6 of the paper is left out: it needs two targets with several different designs.")
    embedding = subject.embedding
    (lowest, _), *others = embedding.generated
    scale = subject.surrogate.scale
    with torch.no_grad():
        found = [close_pairs(scale(lowest.designs), scale(table.designs), _LISTED) for table, _ in others]
    text = (
        f"Designs for {target_label(lowest)} and for each of the other targets that are nearest to each "
        "other, in coordinates scaled by the box, among those that the map shows: small changes of the design that switch the "
        "property. They are what sampling happens to give, not the smallest changes that there are."
    )
    heads, rows = _rows(subject, lowest, [table for table, _ in others], found)
    table = Table("The closest pairs; changes are those from the first to the second design of a pair.", heads, rows)
    return Section(title, text, [_draw(subject, embedding, found)], [table])


def _rows(
    subject: Exploration, lowest: Candidates, others: Sequence[Candidates], found: Sequence[Sequence[Pair]]
) -> tuple[list[str], list[list[object]]]:
    prop = subject.properties[0]
    heads = ["to", "pair", "distance [half-widths]", *(f"{name} {axis_label(prop)}" for name in ("first", "second"))]
    heads += [f"change of {axis_label(parameter)}" for parameter in subject.space.parameters]
    rows: list[list[object]] = []
    for other, best in zip(others, found, strict=True):
        for number, pair in enumerate(best, start=1):
            change = (other.designs[pair.second] - lowest.designs[pair.first]).tolist()
            values = [float(lowest.mean[pair.first, 0]), float(other.mean[pair.second, 0])]
            rows.append([target_label(other), number, pair.distance, *values, *change])
    return heads, rows


def _draw(subject: Exploration, embedding: Embedding, found: Sequence[Sequence[Pair]]) -> Picture:
    first, *others = embedding.generated
    figure = matplotlib.figure.Figure(figsize=(5.2 * len(others), 7.4), layout="constrained")
    grid = figure.add_gridspec(2, _INSETS * len(others), height_ratios=[2, 1])
    for panel, (second, best) in enumerate(zip(others, found, strict=True)):
        columns = range(_INSETS * panel, _INSETS * (panel + 1))
        axis = figure.add_subplot(grid[0, columns.start : columns.stop])
        _draw_panel(subject, axis, [figure.add_subplot(grid[1, column]) for column in columns], (first, second), best)
    tables = [table for table, _ in embedding.generated]
    places = np.concatenate([place for _, place in embedding.generated])
    write_data(
        subject.folder / "figure_6.parquet",
        {
            "target": ("", [target_label(table) for table in tables for _ in table.designs]),
            "umap_1": ("1", places[:, 0].tolist()),
            "umap_2": ("1", places[:, 1].tolist()),
            **{
                parameter.name: (parameter.unit, torch.cat([table.designs[:, i] for table in tables]).tolist())
                for i, parameter in enumerate(subject.space.parameters)
            },
        },
    )
    return Picture(
        save_figure(figure, subject.folder, "figure_6"),
        "After Figure 6 of the paper: candidates for the lowest target with those for each other target on one map (UMAP of "
        "the scaled coordinates, one layout for all panels), and zooms on close pairs with the two knobs that change most.",
        "Maps of designs for two targets each, with enlarged close pairs; the table below lists their changes.",
    )


def _draw_panel(
    subject: Exploration, axis: Axes, insets: Sequence[Axes], sets: Sequence[tuple[Candidates, Places]], best: Sequence[Pair]
) -> None:
    """A map of two tables, and zooms on the best pairs whose surroundings do not overlap."""
    (first, first_places), (second, second_places) = sets
    names = [target_label(first), target_label(second)]
    _scatter(axis, (first_places, second_places), 5)
    axis.legend(axis.collections, names, fontsize="small", markerscale=3, loc="upper right")
    axis.set_title(" and ".join(names), fontsize="medium")
    bare(axis)
    least = 0.05 * float(np.ptp(axis.get_xlim()))
    shown: list[Square] = []
    for pair in best:
        ends = np.stack([first_places[pair.first], second_places[pair.second]])
        square = _square(ends, least)
        if len(shown) == len(insets) or any(_overlap(square, other) for other in shown):
            continue
        inset = insets[len(shown)]
        shown.append(square)
        _zoom(axis, inset, square, str(len(shown)))
        _scatter(inset, (first_places, second_places), 16)
        inset.plot(*ends.T, "-o", color="black", markerfacecolor="none", markersize=9, linewidth=1)
        change = _largest_changes(subject, first.designs[pair.first], second.designs[pair.second])
        inset.set_title(f"{len(shown)}: {change}", fontsize="small")
    for inset in insets[len(shown) :]:
        inset.set_axis_off()


def _scatter(axis: Axes, places: tuple[Places, Places], size: float) -> None:
    for each, color, marker in zip(places, (BLUE, VERMILLION), ("o", "^"), strict=True):
        axis.scatter(each[:, 0], each[:, 1], s=size, color=color, marker=marker, linewidths=0)


def _square(ends: Float[np.ndarray, "2 2"], least: float) -> Square:
    """A square around a pair: lower left corner, side."""
    reach = max(float(np.ptp(ends, axis=0).max()), least)
    x, y = (ends.mean(axis=0) - reach).tolist()
    return x, y, 2 * reach


def _overlap(one: Square, other: Square) -> bool:
    side = max(one[2], other[2])
    return abs(one[0] - other[0]) < side and abs(one[1] - other[1]) < side


def _zoom(axis: Axes, inset: Axes, square: Square, name: str) -> None:
    """Let the inset show a square, and mark it in the map."""
    x, y, side = square
    axis.add_patch(Rectangle((x, y), side, side, fill=False, color="black", linewidth=1))
    axis.annotate(name, (x + side, y + side), fontweight="bold")
    inset.set(xlim=(x, x + side), ylim=(y, y + side), xticks=[], yticks=[])


def _largest_changes(subject: Exploration, first: Float[Tensor, " dx"], second: Float[Tensor, " dx"]) -> str:
    """The two knobs that change most, relative to the box, with their changes in their units."""
    change = second - first
    order = (change / subject.surrogate.scale.std).abs().argsort(descending=True)[:2].tolist()
    parameters = [subject.space.parameters[i] for i in order]
    return "\n".join(f"{p.name} {float(change[i]):+.2g} {p.unit}" for i, p in zip(order, parameters, strict=True))
