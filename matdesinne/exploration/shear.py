"""How probable it is that a property is at its floor, e.g. that a design is a metal, against the shear of the cell."""

from __future__ import annotations

__all__ = ["draw_floor_share", "floor_shares"]

import matplotlib.figure
import numpy as np
import pandas
import torch

from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.strain_kinds import AVERAGES, StrainKind, average_strain
from matdesinne.files import write_table
from matdesinne.reporting.drawing import printed_name, save_figure
from matdesinne.reporting.intervals import LEVEL, share_interval
from matdesinne.reporting.palette import BLUE, SKY
from matdesinne.reporting.report import Picture

_DESIGNS = 20_000
"""Number of uniform designs."""
_WIDTH = 2.0
"""Width of a bin of the average absolute shear strain in percent."""
_FEWEST = 20
"""Bins with fewer designs are left out."""


def floor_shares(exploration: Exploration) -> pandas.DataFrame:
    """Returns the share of uniform designs whose first property the surrogate puts at or below its floor, by shear strain.

    The columns are the edges of the bin of the average absolute shear strain in percent (``shear_from``, ``shear_to``), the
    number of designs, the share, and the ends of Wilson's interval.
    """
    generator = torch.Generator().manual_seed(exploration.seed)
    designs = exploration.space.sample(_DESIGNS, generator)
    floor = exploration.surrogate.properties[0].floor or 0.0
    at_floor = (exploration.surrogate.predict_many(designs)[0][:, 0] <= floor).numpy()
    bins = (average_strain(exploration.space, designs, StrainKind.SHEAR, AVERAGES[1]) // _WIDTH).astype(int)
    rows = []
    for number in np.unique(bins):
        inside = at_floor[bins == number]
        if len(inside) >= _FEWEST:
            hits = int(inside.sum())
            ends = share_interval(hits, len(inside))
            rows.append([number * _WIDTH, (number + 1) * _WIDTH, len(inside), hits / len(inside), *ends])
    return pandas.DataFrame(rows, columns=["shear_from", "shear_to", "designs", "share", "share_lower", "share_upper"])


def draw_floor_share(exploration: Exploration, shares: pandas.DataFrame) -> Picture:
    """Draw `floor_shares` against the average absolute shear strain."""
    units = dict.fromkeys(("shear_from", "shear_to"), "%")
    columns = {str(name): (units.get(str(name), "1"), column.to_numpy()) for name, column in shares.items()}
    write_table(exploration.folder / "figure_5_floor.parquet", columns)
    prop = exploration.surrogate.properties[0]
    middle = (shares["shear_from"] + shares["shear_to"]) / 2
    figure = matplotlib.figure.Figure(figsize=(5.2, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.fill_between(middle, 100 * shares["share_lower"], 100 * shares["share_upper"], color=SKY, alpha=0.5, linewidth=0)
    axis.plot(middle, 100 * shares["share"], "o-", color=BLUE, markersize=4)
    label = f"designs with {printed_name(prop.name)} ≤ {prop.floor:g}{prop.suffix} [%]"
    axis.set(xlabel="average absolute shear strain [%]", ylabel=label, xlim=(0, None), ylim=(0, 100))
    return Picture(
        save_figure(figure, exploration.folder, "figure_5_floor"),
        f"Share of {_DESIGNS:,} uniform designs of the box whose predicted {printed_name(prop.name)} is at or below the "
        f"floor, against the average absolute shear strain, with {100 * LEVEL:.0f} % intervals. The paper states this "
        "without a figure.",
        "Share of designs at the floor against the average absolute shear strain.",
    )
