"""Design rules: the knob that moves a property most, by target, and curves of the property along each knob."""

from __future__ import annotations

__all__ = ["design_rules_section", "sensitivities", "start_design"]

from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
import pandas
import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.transitions.crossing import half_widths
from matdesinne.files import write_table
from matdesinne.reporting.drawing import axis_label, printed_name, save_figure, target_label
from matdesinne.reporting.intervals import LEVEL, draw_bars, interval_columns, interval_texts
from matdesinne.reporting.palette import BLUE, CYCLE, SKY, VERMILLION
from matdesinne.reporting.report import Picture, Section, Table
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property

_POINTS = 121
"""Designs along a curve."""
_BAND = 0.9
"""Probability that the band about a curve holds the property."""


def sensitivities(surrogate: Surrogate, tables: Sequence[Candidates], seed: int) -> pandas.DataFrame:
    """Returns how strongly each property depends on each knob, over the designs of each table.

    The column ``slope`` is the mean derivative with respect to the knob, times half the width of its range, in the unit of the
    property, and ``size`` the mean of its absolute value; ``_lower`` and ``_upper`` are the ends of their intervals, by the
    bootstrap over designs.
    """
    frames = []
    for table in tables:
        scaled = surrogate.linearize(table.designs.to(surrogate.device)).jacobian.cpu() * half_widths(surrogate)
        for slopes, prop in zip(scaled.double().unbind(dim=1), surrogate.properties, strict=True):
            means = interval_columns("size", slopes.abs().numpy(), seed) | interval_columns("slope", slopes.numpy(), seed)
            keys = {"target": target_label(table), "property_name": prop.name, "parameter": surrogate.space.names}
            frames.append(pandas.DataFrame({**keys, "designs": len(table), **means}))
    return pandas.concat(frames, ignore_index=True)


def design_rules_section(exploration: Exploration, changes: Mapping[str, float] | None) -> Section:
    """Returns the section on the knobs that move the property most for each target, with curves through `start_design`."""
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
    units = {"parameter": "", "unit": "", "value": "unit"}
    units |= {f"{prop.name}{ending}": prop.unit for prop in surrogate.properties for ending in ("", "_half_width")}
    write_table(exploration.folder / "curves.parquet", {name: (units[name], curves[name].to_numpy()) for name in units})
    figures = [_draw_bars(exploration, entries)]
    figures += [_draw_curves(exploration, curves, start, name, j) for j in range(len(surrogate.properties))]
    return Section("Design rules", text, figures, [_table(surrogate.properties, entries)])


def _table(properties: Sequence[Property], entries: pandas.DataFrame) -> Table:
    entries = entries.sort_values(["target", "property_name", "size"], ascending=[True, True, False], kind="stable")
    keys = [entries[name] for name in ("target", "property_name", "parameter")]
    rows = list(zip(*keys, interval_texts(entries, "size"), interval_texts(entries, "slope"), strict=True))
    unit = _units(properties)
    return Table(
        f"Change of the property for a step of the knob by half the width of its range, with {100 * LEVEL:.0f} % intervals of "
        "the mean over designs, which do not include the error of the surrogate.",
        ["target", "property", "knob", f"mean |change| [{unit}]", f"mean change [{unit}]"],
        rows,
    )


def _units(properties: Sequence[Property]) -> str:
    return " or ".join(dict.fromkeys(prop.unit for prop in properties))


def _strongest(properties: Sequence[Property], entries: pandas.DataFrame) -> list[str]:
    """Returns one sentence for each target and property."""
    units = {prop.name: prop.suffix for prop in properties}
    strongest = entries.loc[entries.groupby(["target", "property_name"], sort=False)["size"].idxmax()]
    keys = strongest[["target", "property_name", "parameter"]].itertuples(index=False)
    return [
        f"For {target}, {printed_name(knob)} moves the {printed_name(prop)} most: by {size}{units[prop]} on average."
        for (target, prop, knob), size in zip(keys, interval_texts(strongest, "size"), strict=True)
    ]


def _write(exploration: Exploration, entries: pandas.DataFrame) -> None:
    units = dict.fromkeys(("target", "property_name", "parameter"), "") | {"designs": "1"}
    unit = _units(exploration.surrogate.properties)
    columns = {str(name): (units.get(str(name), unit), column.to_numpy()) for name, column in entries.items()}
    for suffix in ("parquet", "csv"):
        write_table(exploration.folder / f"design_rules.{suffix}", columns)


def _draw_bars(exploration: Exploration, entries: pandas.DataFrame) -> Picture:
    properties, names = exploration.surrogate.properties, exploration.space.names
    figure = matplotlib.figure.Figure(figsize=(max(1.1 * len(names), 5.0), 3.4 * len(properties)), layout="constrained")
    targets = entries["target"].unique()
    width = 0.8 / len(targets)
    for axis, prop in zip(np.atleast_1d(figure.subplots(len(properties), 1)), properties, strict=True):
        for t, target in enumerate(targets):
            group = entries[(entries["target"] == target) & (entries["property_name"] == prop.name)]
            places = np.arange(len(group)) + (t - (len(targets) - 1) / 2) * width
            draw_bars(axis, places, group, "size", width, color=CYCLE[t % len(CYCLE)], label=target)
        axis.set_xticks(range(len(names)), [printed_name(name).replace(" ", "\n") for name in names])
        axis.set_ylabel(f"mean |change| of {printed_name(prop.name)}\nfor half the range [{prop.unit}]")
        axis.legend(fontsize="small", loc="upper left")
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


def _curves(surrogate: Surrogate, start: Float[Tensor, " dx"]) -> pandas.DataFrame:
    """Returns each knob on a line through the design, the properties there, and the half-widths of their bands."""
    frames = []
    scales = zip(surrogate.space.parameters, surrogate.scale.mean.tolist(), surrogate.scale.std.tolist(), strict=True)
    for i, (parameter, middle, spread) in enumerate(scales):
        low, high = (parameter.lower, parameter.upper) if parameter.bounded else (middle - 2 * spread, middle + 2 * spread)
        designs = start.repeat(_POINTS, 1)
        designs[:, i] = torch.linspace(low, high, _POINTS)
        y, std = surrogate.predict_many(designs)
        half_width = surrogate.half_width(std, _BAND)
        frame = pandas.DataFrame({"parameter": parameter.name, "unit": parameter.unit, "value": designs[:, i].double().numpy()})
        for j, prop in enumerate(surrogate.properties):
            frame[prop.name] = y[:, j].double().numpy()
            frame[f"{prop.name}_half_width"] = half_width[:, j].double().numpy()
        frames.append(frame)
    return pandas.concat(frames)


def _draw_curves(exploration: Exploration, curves: pandas.DataFrame, start: Float[Tensor, " dx"], name: str, j: int) -> Picture:
    """Draw the property with number `j` along each knob."""
    properties, parameters = exploration.surrogate.properties, exploration.space.parameters
    prop, columns = properties[j], min(len(parameters), 4)
    rows = -(-len(parameters) // columns)
    figure = matplotlib.figure.Figure(figsize=(2.9 * columns, 2.7 * rows), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(rows, columns, sharey=True)).flat)
    for i, (axis, parameter) in enumerate(zip(axes, parameters, strict=False)):
        curve = curves[curves["parameter"] == parameter.name]
        x, y, half_width = (curve[name] for name in ("value", prop.name, f"{prop.name}_half_width"))
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
        f"{printed_name(prop.name).capitalize()} along each knob through {name} (dashed), with the other knobs fixed. Band: "
        f"{100 * _BAND:.0f} % interval of the calibrated surrogate.{floor} Not in the paper.",
        f"Curves of {prop.name} against each parameter with a band of uncertainty.",
    )
