"""Design rules: which knob moves a property most, where, and how the property runs along each knob."""

from __future__ import annotations

__all__ = ["Sensitivity", "rules", "sensitivities", "start_design"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import matplotlib.figure
import numpy as np
import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.exploration.designs import Exploration
from matdesinne.reporting.drawing import axis_label, save_figure, target_label, write_data
from matdesinne.reporting.intervals import LEVEL, interval_text, mean_intervals
from matdesinne.reporting.palette import BLUE, CYCLE, SKY, VERMILLION
from matdesinne.reporting.report import Picture, Section, Table
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate

_POINTS = 121
"""Designs along a curve."""
_BAND = 0.9
"""Content of the band about a curve."""


@dataclass(frozen=True)
class Sensitivity:
    """How strongly a property answers to one knob, over the designs for one target.

    Args:
        target: what the designs were made for, in words.
        property_name: which property.
        parameter: the knob.
        designs: number of designs.
        size: mean absolute derivative with respect to the knob, times half the width of its range, in the property's unit.
        size_lower: lower end of the interval of `size`, by the bootstrap over designs.
        size_upper: upper end.
        slope: mean derivative with its sign, scaled alike: which way the property goes when the knob is raised.
        slope_lower: lower end of its interval.
        slope_upper: upper end.
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
    def sizes(self) -> tuple[float, float, float]:
        """Mean size with its interval."""
        return self.size, self.size_lower, self.size_upper

    @property
    def slopes(self) -> tuple[float, float, float]:
        """Mean slope with its interval."""
        return self.slope, self.slope_lower, self.slope_upper


def sensitivities(surrogate: Surrogate, tables: Sequence[Candidates], seed: int) -> list[Sensitivity]:
    """Scaled derivatives of the surrogate, by target and knob.

    Args:
        surrogate: whose derivatives.
        tables: designs for one target each.
        seed: of the bootstrap.
    """
    found = []
    for table in tables:
        scaled = surrogate.linearize(table.designs.to(surrogate.device)).jacobian * surrogate.scale.std
        for j, prop in enumerate(surrogate.properties):
            slopes = scaled[:, j].cpu().double().numpy()
            both = np.concatenate([np.abs(slopes), slopes], axis=1)
            columns = np.stack([both.mean(axis=0), *mean_intervals(both, seed)]).reshape(3, 2, -1)
            for i, name in enumerate(surrogate.space.names):
                size, slope = columns[:, :, i].T.tolist()
                found.append(Sensitivity(target_label(table), prop.name, name, len(table), *size, *slope))
    return found


def rules(subject: Exploration, config: DictConfig) -> Section:
    """Which knob moves the property most at each target, and curves through one design."""
    found = sensitivities(subject.surrogate, subject.generated, subject.seed)
    _write(subject, found)
    rows = [
        [entry.target, entry.property_name, entry.parameter, *texts]
        for entry in sorted(found, key=lambda entry: (entry.target, entry.property_name, -entry.size))
        for texts in [(interval_text(*entry.sizes), interval_text(*entry.slopes))]
    ]
    unit = " or ".join(dict.fromkeys(prop.unit for prop in subject.surrogate.properties))
    heads = ["target", "property", "knob", f"mean |change| [{unit}]", f"mean change [{unit}]"]
    table = Table(
        f"Change of the property for a knob's step of half the width of its range, with {100 * LEVEL:.0f} % intervals of the "
        "mean over designs; the error of the surrogate is not in them.",
        heads,
        rows,
    )
    text = "Derivatives of the surrogate with respect to each knob, times half the width of the knob's range.\n\n"
    text += " ".join(_strongest(subject, found))
    for prop in subject.surrogate.properties:
        if prop.floor is not None and not prop.censored:
            text += f" Below {prop.floor:g} {prop.unit} they are those of the signed {prop.name}."
    start, name = start_design(subject.surrogate, dict(config.design or {}))
    figures = [_bars(subject, found), *_curves(subject, start, name)]
    return Section("Design rules", text, figures, [table])


def _strongest(subject: Exploration, found: Sequence[Sensitivity]) -> list[str]:
    units = {prop.name: "" if prop.unit == "1" else f" {prop.unit}" for prop in subject.surrogate.properties}
    groups: dict[tuple[str, str], list[Sensitivity]] = {}
    for entry in found:
        groups.setdefault((entry.target, entry.property_name), []).append(entry)
    sentences = []
    for (target, prop), entries in groups.items():
        best = max(entries, key=lambda entry: entry.size)
        sentences.append(
            f"For {target}, {best.parameter} moves {prop} most: by {interval_text(*best.sizes)}{units[prop]} on average."
        )
    return sentences


def _write(subject: Exploration, found: Sequence[Sensitivity]) -> None:
    units = {prop.name: prop.unit for prop in subject.surrogate.properties}
    unit = " or ".join(dict.fromkeys(units.values()))
    columns = {
        field.name: (
            unit if field.name.startswith(("size", "slope")) else "1" if field.name == "designs" else "",
            [getattr(entry, field.name) for entry in found],
        )
        for field in fields(Sensitivity)
    }
    for suffix in ("parquet", "csv"):
        write_data(subject.folder / f"design_rules.{suffix}", columns)


def _bars(subject: Exploration, found: Sequence[Sensitivity]) -> Picture:
    properties, names = subject.surrogate.properties, subject.space.names
    figure = matplotlib.figure.Figure(figsize=(max(1.1 * len(names), 5.0), 3.4 * len(properties)), layout="constrained")
    targets = list(dict.fromkeys(entry.target for entry in found))
    width = 0.8 / len(targets)
    for axis, prop in zip(np.atleast_1d(figure.subplots(len(properties), 1)), properties, strict=True):
        for t, target in enumerate(targets):
            entries = [entry for entry in found if (entry.target, entry.property_name) == (target, prop.name)]
            size, low, high = (np.array([getattr(e, key) for e in entries]) for key in ("size", "size_lower", "size_upper"))
            places = np.arange(len(entries)) + (t - (len(targets) - 1) / 2) * width
            axis.bar(places, size, 0.9 * width, color=CYCLE[t % len(CYCLE)], label=target)
            axis.errorbar(places, size, [size - low, high - size], fmt="none", ecolor="black", linewidth=1)
        axis.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
        axis.set_ylabel(f"mean |change| of {prop.name.replace('_', ' ')}\nfor half the range [{prop.unit}]")
        axis.legend(fontsize="small")
    return Picture(
        save_figure(figure, subject.folder, "design_rules"),
        f"How far each knob moves the property, by target; lines: {100 * LEVEL:.0f} % intervals of the mean. Not in the paper.",
        "Bars of the sensitivity to each knob for each target, numbers in the table below.",
    )


def start_design(surrogate: Surrogate, changes: Mapping[str, float]) -> tuple[Float[Tensor, " dx"], str]:
    """The design through which the curves go, and what it is: the reference, or the middle where that lies outside."""
    space: DesignSpace = surrogate.space
    space.narrowed(fixed=changes)  # raises where a name is unknown or a value lies outside
    start, name = space.reference, "the reference design"
    if not space.contains(start.unsqueeze(0)).all():
        start, name = surrogate.scale.mean.cpu().clone(), "the middle of the design space"
    for key, value in changes.items():
        start[space.index(key)] = value
    return start, f"{name} with {', '.join(f'{k} = {v:g}' for k, v in changes.items())}" if changes else name


def _curves(subject: Exploration, start: Float[Tensor, " dx"], name: str) -> list[Picture]:
    surrogate = subject.surrogate
    columns: dict[str, tuple[str, list[object]]] = {"parameter": ("", []), "unit": ("", []), "value": ("unit", [])}
    lines = []
    for i, parameter in enumerate(subject.space.parameters):
        mean, std = surrogate.scale.mean[i].item(), surrogate.scale.std[i].item()
        low, high = (parameter.lower, parameter.upper) if parameter.bounded else (mean - 2 * std, mean + 2 * std)
        designs = start.repeat(_POINTS, 1)
        designs[:, i] = torch.linspace(low, high, _POINTS)
        y, spread = surrogate.predict_many(designs)
        lines.append((designs[:, i], y, surrogate.half_width(spread, _BAND)))
        for key, values in zip(
            columns, ([parameter.name] * _POINTS, [parameter.unit] * _POINTS, designs[:, i].tolist()), strict=True
        ):
            columns[key][1].extend(values)
    for j, prop in enumerate(surrogate.properties):
        columns[prop.name] = (prop.unit, [v for _, y, _ in lines for v in y[:, j].tolist()])
        columns[f"{prop.name}_half_width"] = (prop.unit, [v for _, _, half in lines for v in half[:, j].tolist()])
    write_data(subject.folder / "curves.parquet", columns)
    return [_draw_curves(subject, start, name, lines, j) for j in range(len(surrogate.properties))]


def _draw_curves(
    subject: Exploration, start: Float[Tensor, " dx"], name: str, lines: Sequence[tuple[Tensor, Tensor, Tensor]], j: int
) -> Picture:
    prop, count = subject.surrogate.properties[j], subject.space.dimension
    columns = min(count, 4)
    figure = matplotlib.figure.Figure(figsize=(2.9 * columns, 2.7 * -(-count // columns)), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(-(-count // columns), columns, sharey=True)).flat)
    for axis, parameter, x0, (x, y, half) in zip(axes, subject.space.parameters, start.tolist(), lines, strict=False):
        axis.fill_between(x, y[:, j] - half[:, j], y[:, j] + half[:, j], color=SKY, alpha=0.5, linewidth=0)
        axis.plot(x, y[:, j], color=BLUE)
        axis.axvline(x0, color=VERMILLION, linestyle="--", linewidth=1)
        if prop.floor is not None:
            axis.axhline(prop.floor, color="black", linestyle=":", linewidth=1)
        axis.set_xlabel(axis_label(parameter))
    for axis in axes[::columns]:
        axis.set_ylabel(axis_label(prop))
    for axis in axes[count:]:
        axis.set_axis_off()
    file = "curves" if len(subject.surrogate.properties) == 1 else f"curves_{prop.name}"
    return Picture(
        save_figure(figure, subject.folder, file),
        f"{prop.name} along each knob through {name} (dashed), the others held; band: {100 * _BAND:.0f} % interval of the "
        "calibrated surrogate" + ("" if prop.floor is None else "; dotted: the floor") + ". Not in the paper.",
        f"Curves of {prop.name} against each parameter with a band of uncertainty.",
    )
