"""Files of a validation: numbers, a table, and the picture with structures."""

from __future__ import annotations

__all__ = ["write_validation"]

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib.figure
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.files import atomic_path, write_json
from matdesinne.labelling.validation import TargetErrors, Validation
from matdesinne.reporting.intervals import interval_text
from matdesinne.reporting.palette import BLUE, GREEN, GREY, VERMILLION
from matdesinne.structures import Prototype, draw_structure

_LABELS, _TARGET, _SPREAD = BLUE, VERMILLION, GREEN
_EXAMPLES = 2


def write_validation(validation: Validation, folder: Path, prototype: Prototype | None, outlier: float, seed: int) -> str:
    """Write ``validation.json``, ``.md``, ``.parquet`` and ``.png``; the text of the second is returned.

    Args:
        validation: candidates with labels.
        folder: of the files.
        prototype: atoms of a design, for the structures in the picture; none are drawn when omitted.
        outlier: distance to the target above which a label is an outlier, in the unit of the property.
        seed: of the bootstrap.
    """
    errors = validation.errors(outlier, seed)
    write_json(folder / "validation.json", {"outlier": outlier, "targets": [asdict(entry) for entry in errors]})
    _write_table(validation, folder / "validation.parquet")
    text = _markdown(errors, validation.chosen[0].properties[0].unit, outlier)
    with atomic_path(folder / "validation.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    _draw(validation, prototype, folder / "validation.png")
    return text


def _write_table(validation: Validation, path: Path) -> None:
    """The candidates as generate.py writes them, and the oracle's property beside the prediction."""
    import pyarrow
    import pyarrow.parquet

    prop = validation.chosen[0].properties[0]
    parts = []
    first = 0
    for candidates, labels in zip(validation.chosen, validation.labels, strict=True):
        rows = validation.run.rows[first : first + len(candidates)]
        first += len(candidates)
        part = candidates.to_arrow()
        for name, values in (
            ("label", labels.tolist()),
            ("id", [row["id"] for row in rows]),
            ("versions", [row["versions"] for row in rows]),
        ):
            unit = {"unit": prop.unit if name == "label" else ""}
            kind = pyarrow.float64() if name == "label" else pyarrow.string()
            part = part.append_column(pyarrow.field(name, kind, metadata=unit), pyarrow.array(values, kind, from_pandas=True))
        parts.append(part.replace_schema_metadata({"property": json.dumps(asdict(prop))}))
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.concat_tables(parts), temporary)


def _markdown(errors: Sequence[TargetErrors], unit: str, outlier: float) -> str:
    def interval(value: float | None, edges: tuple[float, float] | None, scale: float) -> str:
        low, high = (np.nan, np.nan) if edges is None else edges
        return "" if value is None else interval_text(scale * value, scale * low, scale * high)

    head = [
        "target",
        "designs",
        "failed",
        f"MAE [{unit}]",
        f"RMSE [{unit}]",
        f"largest [{unit}]",
        f"error > {outlier:g} {unit} [%]",
        "at the floor [%]",
        f"prediction MAE [{unit}]",
        "within one, two spreads [%]",
        "rank correlation",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for entry in errors:
        cells = [
            entry.target,
            str(entry.labelled),
            str(entry.failed),
            interval(entry.mae, entry.mae_interval, 1),
            f"{entry.rmse:.3g}",
            f"{entry.largest:.3g}",
            interval(entry.outliers, entry.outliers_interval, 100),
            interval(entry.at_floor, entry.at_floor_interval, 100),
            f"{entry.prediction_mae:.3g}",
            f"{100 * entry.within_spread:.0f}, {100 * entry.within_two:.0f}",
            "" if entry.rank_correlation is None else f"{entry.rank_correlation:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "Errors of labels against targets; in brackets 95 % intervals (bootstrap, Wilson).\n\n" + "\n".join(lines) + "\n"


def _draw(validation: Validation, prototype: Prototype | None, path: Path) -> None:
    """A row a target: histogram of the labels, spread against error, and structures where designs are crystals."""
    examples = 0 if prototype is None else _EXAMPLES
    count = len(validation.chosen)
    figure = matplotlib.figure.Figure(figsize=(7.5 + 2.2 * examples, 2.6 * count), layout="constrained")
    grid = figure.subplots(count, 2 + examples, squeeze=False, width_ratios=[1.6, 1.2, *([0.8] * examples)])
    for row, candidates, labels in zip(grid, validation.chosen, validation.labels, strict=True):
        known = ~labels.isnan()
        candidates, labels = candidates.take(known), labels[known]
        _draw_histogram(row[0], candidates, labels)
        _draw_spread(row[1], candidates, labels)
        if prototype is not None:
            _draw_examples(row[2:], candidates, labels, prototype)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _draw_histogram(axis: Axes, candidates: Candidates, labels: Float[Tensor, " n"]) -> None:
    prop = candidates.properties[0]
    low, high = float(labels.min()), float(labels.max())
    slack = max(0.05 * (high - low), 0.01)
    axis.hist(labels.numpy(), bins=np.linspace(low - slack, high + slack, 41).tolist(), color=_LABELS)
    for edge in {candidates.target.lower[0], candidates.target.upper[0]}:
        if np.isfinite(edge):
            axis.axvline(edge, color=_TARGET, linestyle="--")
    axis.set(xlabel=f"{prop.name} [{prop.unit}]", ylabel="designs", title=candidates.target.format(candidates.properties))


def _draw_spread(axis: Axes, candidates: Candidates, labels: Float[Tensor, " n"]) -> None:
    prop = candidates.properties[0]
    spread, miss = candidates.std[:, 0].numpy(), (labels - candidates.mean[:, 0].double()).abs().numpy()
    axis.plot(spread, miss, ".", color=_SPREAD)
    top = float(spread.max()) * 1.05
    axis.plot([0, top], [0, top], color=GREY, linewidth=1)
    axis.set(xlabel=f"predicted spread [{prop.unit}]", ylabel=f"|label - prediction| [{prop.unit}]", xlim=(0, top or None))


def _draw_examples(axes: Sequence[Axes], candidates: Candidates, labels: Float[Tensor, " n"], prototype: Prototype) -> None:
    """The design whose label is nearest to the target, then the designs that differ most from those drawn."""
    error = candidates.target.residual(labels.unsqueeze(1)).abs()[:, 0]
    unit = (candidates.designs - candidates.space.lower) / (candidates.space.upper - candidates.space.lower)
    drawn = [int(error.argmin())]
    while len(drawn) < min(len(axes), len(labels)):
        drawn.append(int(torch.cdist(unit, unit[drawn]).amin(dim=1).argmax()))
    for axis, row in zip(axes, drawn, strict=False):
        design = dict(zip(candidates.space.names, candidates.designs[row].tolist(), strict=True))
        draw_structure(prototype.atoms(design), axis)
        axis.set_title(f"{float(labels[row]):.2f} {candidates.properties[0].unit}", fontsize="medium")
    for axis in axes:
        axis.set_axis_off()
