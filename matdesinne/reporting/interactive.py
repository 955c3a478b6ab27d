"""Candidates to work with in a report: parallel coordinates with brushes, a table, and a viewer of structures.

Bokeh draws lines and table: it runs under a Content-Security-Policy without ``unsafe-eval``, needs no WebGL, and its scripts
take 1.9 MB. Plotly's parallel coordinates need WebGL programs, which the script in its Python package (4.8 MB) compiles by
``new Function``, so that they stay empty under such a policy. Chemiscope's standalone script (3.2 MB) shows the atoms, where
it is installed. ``interactive.js`` links the three.
"""

from __future__ import annotations

__all__ = ["CandidateView", "view_libraries"]

import functools
import html
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matdesinne.reporting.palette import BLUE, GREEN, VERMILLION

if TYPE_CHECKING:
    from bokeh.models import DataTable, Plot

_WIDTH = 85
"""Smallest distance of two axes in pixels."""
_MARGIN = 0.04
"""Length of an axis beyond its ends, as a share of its length."""


@dataclass(frozen=True)
class CandidateView:
    """Rows of numbers with units, one for each candidate.

    Args:
        columns: ``{name: (unit, values)}`` in the order of axes and table; NaN for an unknown value.
        hidden: columns that are in the table only.
        targets: lower and upper edge of what was asked for, by the name of a column; infinite where open.
        checked: rows to draw in another colour.
        symbols: chemical symbols of the atoms, where candidates are crystals.
        positions: fractional coordinates of the atoms of each candidate, or of all candidates as a single entry.
        cells: the nine components of the cell vectors of each candidate in angstrom.
    """

    columns: Mapping[str, tuple[str, Sequence[float]]]
    hidden: Sequence[str] = ()
    targets: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    checked: Sequence[bool] = ()
    symbols: Sequence[str] = ()
    positions: Sequence[Sequence[Sequence[float]]] = ()
    cells: Sequence[Sequence[float]] = ()

    @property
    def count(self) -> int:
        """Number of candidates."""
        return len(next(iter(self.columns.values()))[1])

    @property
    def width(self) -> int:
        """Smallest width of the figure in pixels."""
        return _WIDTH * len(self._axes)

    @property
    def shows_structures(self) -> bool:
        """Whether the candidates are crystals and a viewer is installed."""
        return bool(self.symbols) and _viewer() is not None

    @property
    def _axes(self) -> list[str]:
        return [name for name in self.columns if name not in self.hidden]

    def content(self) -> str:
        """Returns what ``interactive.js`` reads, as JSON that may stand in an element ``script``."""
        from bokeh.embed import json_item
        from bokeh.models import CDSView, Column, ColumnDataSource, IndexFilter

        rows = list(range(self.count))
        colours = [GREEN if checked else BLUE for checked in self.checked or [False] * self.count]
        data = {_key(i): np.asarray(values, np.float64) for i, (_, values) in enumerate(self.columns.values())}
        source = ColumnDataSource(
            {**data, "xs": [[]] * self.count, "ys": [[]] * self.count, "colour": colours}, name="candidates"
        )
        view = CDSView(filter=IndexFilter(indices=rows, name="brushed"))
        ranges = [self._range(name) for name in self._axes]
        figure = Column(self._plot(source, view, ranges), self._table(source, view), sizing_mode="stretch_width")
        places = list(self.columns)
        axes = [
            {"key": _key(places.index(name)), "low": low, "high": high}
            for name, (low, high) in zip(self._axes, ranges, strict=True)
        ]
        crystal = None
        if self.shows_structures:
            crystal = {"symbols": list(self.symbols), "positions": self.positions, "cells": self.cells}
        return _json({"figure": json_item(figure), "axes": axes, "crystal": crystal})

    def _range(self, name: str) -> tuple[float, float]:
        """Returns the ends of an axis, which differ: those of the values and of the target, finite ones."""
        values = np.asarray(self.columns[name][1], np.float64)
        edges = [edge for edge in self.targets.get(name, ()) if math.isfinite(edge)]
        known = [*values[np.isfinite(values)].tolist(), *edges] or [0.0]
        low, high = min(known), max(known)
        least = 1e-3 * max(abs(low), abs(high)) if edges or low == high else 0.0  # all candidates may be on the target
        if low == high == 0:
            least = 1.0
        return low - least, high + least

    def _plot(self, source: Any, view: Any, ranges: Sequence[tuple[float, float]]) -> Plot:
        from bokeh import models

        count = len(ranges)
        plot = models.Plot(
            x_range=models.Range1d(-0.6, count - 0.4), y_range=models.Range1d(-_MARGIN, 1 + _MARGIN), height=380, name="plot",
            sizing_mode="stretch_width", toolbar_location=None, min_border_left=5, min_border_right=5, outline_line_color=None,
        )  # fmt: skip
        lines = models.MultiLine(xs="xs", ys="ys", line_color="colour", line_alpha=min(1.0, max(0.15, 30 / self.count)))
        picked = models.MultiLine(xs="xs", ys="ys", line_color=VERMILLION, line_width=3)
        plot.add_glyph(source, lines, view=view, selection_glyph=picked, nonselection_glyph=lines)
        for i, (name, (low, high)) in enumerate(zip(self._axes, ranges, strict=True)):
            margin = _MARGIN * (high - low)
            plot.extra_y_ranges[_key(i)] = models.Range1d(low - margin, high + margin)
            plot.add_layout(_axis(y_range_name=_key(i), fixed_location=i), "left")
            plot.add_layout(_brush(i))
            _mark_target(plot, i, [(edge - low) / (high - low) for edge in self.targets.get(name, ())])
        labels = {i: models.PlainText(f"{name}\n[{self.columns[name][0]}]") for i, name in enumerate(self._axes)}
        ticker = models.FixedTicker(ticks=list(range(count)))
        plot.add_layout(_axis(ticker=ticker, major_label_overrides=labels, axis_line_color=None), "above")
        plot.add_tools(models.BoxSelectTool(renderers=[], continuous=True), models.TapTool())
        return plot

    def _table(self, source: Any, view: Any) -> DataTable:
        from bokeh import models

        # titles become HTML
        columns = [
            models.TableColumn(
                field=_key(i), title=html.escape(_title(name, unit)), width=max(_WIDTH, 20 + 6 * len(_title(name, unit))),
                formatter=models.NumberFormatter(format=_digits(values), nan_format=""),
            )
            for i, (name, (unit, values)) in enumerate(self.columns.items())
        ]  # fmt: skip
        return models.DataTable(
            source=source, view=view, columns=columns, name="table", index_position=None, reorderable=False,
            autosize_mode="none", height=320, sizing_mode="stretch_width",
        )  # fmt: skip


def view_libraries(views: Sequence[CandidateView]) -> list[str]:
    """Returns the scripts that a page with these views runs, in this order; none without a view."""
    if not views:
        return []
    from bokeh.resources import Resources

    scripts = Resources("inline", components=["bokeh", "bokeh-widgets", "bokeh-tables"], log_level="error").js_raw
    viewer = _viewer()
    if viewer is not None and any(view.shows_structures for view in views):
        scripts.append(viewer.read_text(encoding="utf-8"))
    return [*scripts, Path(__file__).with_suffix(".js").read_text(encoding="utf-8")]


@functools.cache
def _viewer() -> Path | None:
    """Returns chemiscope's standalone script, where the package is installed."""
    found = importlib.util.find_spec("chemiscope")
    places = [] if found is None else found.submodule_search_locations or []
    paths = [Path(place) / "sphinx" / "static" / "chemiscope.min.js" for place in places]
    return next((path for path in paths if path.is_file()), None)


def _axis(**settings: object) -> Any:
    from bokeh.models import LinearAxis

    return LinearAxis(minor_tick_line_color=None, major_label_text_color="black", **settings)


def _brush(place: int) -> Any:
    """Returns the box on an axis whose edges a user can drag."""
    from bokeh.models import BoxAnnotation

    return BoxAnnotation(
        left=place - 0.09, right=place + 0.09, bottom=0, top=1, name=f"brush {place}", visible=False, editable=True,
        movable="y", resizable="y", fill_color=VERMILLION, fill_alpha=0.25, line_color=VERMILLION, level="overlay",
    )  # fmt: skip


def _mark_target(plot: Plot, place: int, edges: Sequence[float]) -> None:
    """Mark the edges of a target on its axis, and what lies between them."""
    from bokeh.models import ColumnDataSource, Segment

    if not edges:
        return
    low, high = (min(max(edge, 0.0), 1.0) for edge in edges)
    ticks = [(place - 0.2, place + 0.2, edge, edge) for edge in edges if math.isfinite(edge)]
    x0, x1, y0, y1 = zip(*ticks, (place, place, low, high), strict=True)
    marks = ColumnDataSource({"x0": x0, "x1": x1, "y0": y0, "y1": y1})
    plot.add_glyph(marks, Segment(line_color=VERMILLION, line_width=4))


def _title(name: str, unit: str) -> str:
    return name if unit in ("", "1") else f"{name} [{unit}]"


def _digits(values: Sequence[float]) -> str:
    """Returns the format of a column: four digits of its largest difference, at most six of its values."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if len(known) == 0 or not (known % 1).any():
        return "0"
    largest = float(np.abs(known).max())
    places = [digits - math.floor(math.log10(size)) for digits, size in ((3, float(np.ptp(known)) or largest), (5, largest))]
    return "0." + "0" * min(max(min(places), 1), 15)


def _key(place: int) -> str:
    """Returns the name of a column for Bokeh, which reserves some names."""
    return f"column {place}"


def _json(content: object) -> str:
    # a "</script>" inside a text would end the element
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
