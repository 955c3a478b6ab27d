"""Design rules: the knob that moves a property most, by target, and curves of the property along each knob."""

from __future__ import annotations

__all__ = ["Sensitivity", "design_rules_section", "sensitivities", "start_design"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import NamedTuple

import matplotlib.figure
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.transitions.crossing import half_widths
from matdesinne.files import write_table
from matdesinne.reporting.drawing import axis_label, save_figure, target_label
from matdesinne.reporting.intervals import LEVEL, interval_text, mean_intervals
from matdesinne.reporting.palette import BLUE, CYCLE, SKY, VERMILLION
from matdesinne.reporting.report import Picture, Section, Table
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property

_POINTS = 121
"""Designs along a curve."""
_BAND = 0.9
"""Probability that the band about a curve holds the property."""


@dataclass(frozen=True)
class Sensitivity:
    """How strongly a property depends on a knob, over the designs for one target.

    Args:
        target: label of the target.
        property_name: name of the property.
        parameter: name of the knob.
        designs: number of designs.
        size: mean absolute derivative with respect to the knob, times half the width of its range, in the unit of the property.
        size_lower: lower end of the interval of `size`, by the bootstrap over designs.
        size_upper: upper end of the interval of `size`.
        slope: mean derivative with its sign, times half the width of the range.
        slope_lower: lower end of the interval of `slope`.
        slope_upper: upper end of the interval of `slope`.
    """

    target: str
    property_name: str
    parameter: str
    designs: int
    size: float
    size_lower: float
    size_upper: float
    slope: float
    slope_lower: float
    slope_upper: float

    @property
    def size_text(self) -> str:
        """The mean absolute change with its interval."""
        return interval_text(self.size, self.size_lower, self.size_upper)

    @property
    def slope_text(self) -> str:
        """The mean change with its interval."""
        return interval_text(self.slope, self.slope_lower, self.slope_upper)


class _Curves(NamedTuple):
    """Values of each knob on a line through one design, the properties there, and the half-widths of their bands."""

    x: Float[Tensor, "dx points"]
    y: Float[Tensor, "dx points dy"]
    half_width: Float[Tensor, "dx points dy"]


def sensitivities(surrogate: Surrogate, tables: Sequence[Candidates], seed: int) -> list[Sensitivity]:
    """Returns the scaled derivatives of a surrogate, by target, property and knob."""
    entries = []
    for table in tables:
        scaled = surrogate.linearize(table.designs.to(surrogate.device)).jacobian.cpu() * half_widths(surrogate)
        for j, prop in enumerate(surrogate.properties):
            slopes = scaled[:, j].double().numpy()
            both = np.concatenate([np.abs(slopes), slopes], axis=1)
            columns = np.stack([both.mean(axis=0), *mean_intervals(both, seed)]).reshape(3, 2, -1)
            for i, name in enumerate(surrogate.space.names):
                size, slope = columns[:, :, i].T.tolist()
                entries.append(Sensitivity(target_label(table), prop.name, name, len(table), *size, *slope))
    return entries


def design_rules_section(exploration: Exploration, changes: Mapping[str, float] | None) -> Section:
    """Returns the section on the knobs that move the property most for each target, with curves through one design."""
    surrogate = exploration.surrogate
    entries = sensitivities(surrogate, exploration.generated, exploration.seed)
    _write(exploration, entries)
    text = (
        "Derivatives of the surrogate with respect to each knob, times half the width of the knob's range.\n\n"
        + " ".join(_strongest(surrogate.properties, entries))
        + "".join(
            f" Below {prop.floor:g} {prop.unit} they are those of the signed {prop.name}."
            for prop in surrogate.properties
            if prop.floor is not None and not prop.censored
        )
    )
    start, name = start_design(surrogate, dict(changes or {}))
    curves = _curves(surrogate, start)
    _write_curves(exploration, curves)
    figures = [_draw_bars(exploration, entries)]
    figures += [_draw_curves(exploration, curves, start, name, j) for j in range(len(surrogate.properties))]
    return Section("Design rules", text, figures, [_table(surrogate.properties, entries)])


def _table(properties: Sequence[Property], entries: Sequence[Sensitivity]) -> Table:
    rows = [
        [entry.target, entry.property_name, entry.parameter, entry.size_text, entry.slope_text]
        for entry in sorted(entries, key=lambda entry: (entry.target, entry.property_name, -entry.size))
    ]
    unit = _units(properties)
    return Table(
        f"Change of the property for a step of the knob by half the width of its range, with {100 * LEVEL:.0f} % intervals of "
        "the mean over designs, which do not include the error of the surrogate.",
        ["target", "property", "knob", f"mean |change| [{unit}]", f"mean change [{unit}]"],
        rows,
    )


def _units(properties: Sequence[Property]) -> str:
    return " or ".join(dict.fromkeys(prop.unit for prop in properties))


def _strongest(properties: Sequence[Property], entries: Sequence[Sensitivity]) -> list[str]:
    """Returns one sentence for each target and property."""
    units = {prop.name: "" if prop.unit == "1" else f" {prop.unit}" for prop in properties}
    groups = groupby(entries, key=lambda entry: (entry.target, entry.property_name))
    strongest = [max(group, key=lambda entry: entry.size) for _, group in groups]
    return [
        f"For {entry.target}, {entry.parameter} moves {entry.property_name} most: by {entry.size_text}"
        f"{units[entry.property_name]} on average."
        for entry in strongest
    ]


def _write(exploration: Exploration, entries: Sequence[Sensitivity]) -> None:
    units = dict.fromkeys(("target", "property_name", "parameter"), "") | {"designs": "1"}
    columns = {
        field.name: (
            units.get(field.name, _units(exploration.surrogate.properties)),
            [getattr(entry, field.name) for entry in entries],
        )
        for field in fields(Sensitivity)
    }
    for suffix in ("parquet", "csv"):
        write_table(exploration.folder / f"design_rules.{suffix}", columns)


def _draw_bars(exploration: Exploration, entries: Sequence[Sensitivity]) -> Picture:
    properties, names = exploration.surrogate.properties, exploration.space.names
    figure = matplotlib.figure.Figure(figsize=(max(1.1 * len(names), 5.0), 3.4 * len(properties)), layout="constrained")
    targets = list(dict.fromkeys(entry.target for entry in entries))
    width = 0.8 / len(targets)
    for axis, prop in zip(np.atleast_1d(figure.subplots(len(properties), 1)), properties, strict=True):
        for t, target in enumerate(targets):
            group = [entry for entry in entries if (entry.target, entry.property_name) == (target, prop.name)]
            size, low, high = np.array([(entry.size, entry.size_lower, entry.size_upper) for entry in group]).T
            places = np.arange(len(group)) + (t - (len(targets) - 1) / 2) * width
            axis.bar(places, size, 0.9 * width, color=CYCLE[t % len(CYCLE)], label=target)
            axis.errorbar(places, size, [size - low, high - size], fmt="none", ecolor="black", linewidth=1)
        axis.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
        axis.set_ylabel(f"mean |change| of {prop.name.replace('_', ' ')}\nfor half the range [{prop.unit}]")
        axis.legend(fontsize="small")
    return Picture(
        save_figure(figure, exploration.folder, "design_rules"),
        f"How far each knob moves the property, by target; lines: {100 * LEVEL:.0f} % intervals of the mean. Not in the paper.",
        "Bars of the sensitivity to each knob for each target; the table below lists the numbers.",
    )


def start_design(surrogate: Surrogate, changes: Mapping[str, float]) -> tuple[Float[Tensor, " dx"], str]:
    """Returns the reference design, or the middle of the box if that lies outside, with some values changed, and its name.

    Raises:
        ConfigError: if a name is unknown or a value lies outside the design space.
    """
    space = surrogate.space
    space.narrowed(fixed=changes)  # checks names and values
    start, name = space.reference, "the reference design"
    if not space.contains(start.unsqueeze(0)).all():
        start, name = surrogate.scale.mean.cpu().clone(), "the middle of the design space"
    for key, value in changes.items():
        start[space.index(key)] = value
    return start, f"{name} with {', '.join(f'{k} = {v:g}' for k, v in changes.items())}" if changes else name


def _curves(surrogate: Surrogate, start: Float[Tensor, " dx"]) -> _Curves:
    parameters, scale = surrogate.space.parameters, surrogate.scale
    designs = start.repeat(len(parameters), _POINTS, 1)
    for i, (parameter, mean, std) in enumerate(zip(parameters, scale.mean.tolist(), scale.std.tolist(), strict=True)):
        low, high = (parameter.lower, parameter.upper) if parameter.bounded else (mean - 2 * std, mean + 2 * std)
        designs[i, :, i] = torch.linspace(low, high, _POINTS)
    y, std = surrogate.predict_many(designs.flatten(0, 1))
    half_width = surrogate.half_width(std, _BAND)
    size = (len(parameters), _POINTS)
    return _Curves(designs.diagonal(dim1=0, dim2=2).T, y.unflatten(0, size), half_width.unflatten(0, size))


def _write_curves(exploration: Exploration, curves: _Curves) -> None:
    parameters = exploration.space.parameters
    columns: dict[str, tuple[str, Sequence[object]]] = {
        "parameter": ("", [parameter.name for parameter in parameters for _ in range(_POINTS)]),
        "unit": ("", [parameter.unit for parameter in parameters for _ in range(_POINTS)]),
        "value": ("unit", curves.x.flatten().tolist()),
    }
    for j, prop in enumerate(exploration.surrogate.properties):
        columns[prop.name] = (prop.unit, curves.y[:, :, j].flatten().tolist())
        columns[f"{prop.name}_half_width"] = (prop.unit, curves.half_width[:, :, j].flatten().tolist())
    write_table(exploration.folder / "curves.parquet", columns)


def _draw_curves(exploration: Exploration, curves: _Curves, start: Float[Tensor, " dx"], name: str, j: int) -> Picture:
    """Draw the property with number `j` along each knob."""
    properties, parameters = exploration.surrogate.properties, exploration.space.parameters
    prop, columns = properties[j], min(len(parameters), 4)
    rows = -(-len(parameters) // columns)
    figure = matplotlib.figure.Figure(figsize=(2.9 * columns, 2.7 * rows), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(rows, columns, sharey=True)).flat)
    for i, (axis, parameter) in enumerate(zip(axes, parameters, strict=False)):
        x, y, half_width = curves.x[i], curves.y[i, :, j], curves.half_width[i, :, j]
        axis.fill_between(x, y - half_width, y + half_width, color=SKY, alpha=0.5, linewidth=0)
        axis.plot(x, y, color=BLUE)
        axis.axvline(start[i].item(), color=VERMILLION, linestyle="--", linewidth=1)
        if prop.floor is not None:
            axis.axhline(prop.floor, color="black", linestyle=":", linewidth=1)
        axis.set_xlabel(axis_label(parameter))
    for axis in axes[::columns]:
        axis.set_ylabel(axis_label(prop))
    for axis in axes[len(parameters) :]:
        axis.set_axis_off()
    floor = "" if prop.floor is None else " Dotted: the floor."
    return Picture(
        save_figure(figure, exploration.folder, "curves" if len(properties) == 1 else f"curves_{prop.name}"),
        f"{prop.name} along each knob through {name} (dashed), with the other knobs fixed. Band: {100 * _BAND:.0f} % interval "
        f"of the calibrated surrogate.{floor} Not in the paper.",
        f"Curves of {prop.name} against each parameter with a band of uncertainty.",
    )
