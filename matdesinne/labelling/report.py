"""Files of a validation: the errors, a table of the designs, and a picture with structures."""

from __future__ import annotations

__all__ = ["log_validation", "write_validation"]

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib.figure
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from pytorch_lightning.loggers import Logger
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.files import atomic_path, write_json, write_text
from matdesinne.labelling.validation import TargetErrors, Validation
from matdesinne.reporting.palette import BLUE, GREEN, GREY, VERMILLION
from matdesinne.reporting.tables import markdown_table
from matdesinne.structures import Prototype, draw_structure
from matdesinne.training.loggers import log_results

_EXAMPLES = 2
"""Number of structures for each target."""
_INTRODUCTION = (
    "Errors of labels against targets. The two columns behind a number are the ends of its 95 % interval (bootstrap, "
    "Wilson).\n\n"
)


def write_validation(validation: Validation, folder: Path, prototype: Prototype | None, outlier: float, seed: int) -> str:
    """Write ``validation.json``, ``.md``, ``.parquet`` and ``.png``; returns the text of ``validation.md``.

    For `outlier` and `seed` see `Validation.errors`. The picture shows structures if there is a prototype.
    """
    errors = validation.errors(outlier, seed)
    write_json(folder / "validation.json", {"outlier": outlier, "targets": [asdict(entry) for entry in errors]})
    _write_table(validation, folder / "validation.parquet")
    text = _markdown(errors, validation.chosen[0].properties[0].unit, outlier)
    write_text(folder / "validation.md", text)
    _draw(validation, prototype, folder / "validation.png")
    return text


def log_validation(loggers: Sequence[Logger], validation: Validation, folder: Path, outlier: float, seed: int) -> None:
    """Logs the errors for each target, as numbers and as a table, and the picture that `write_validation` wrote."""
    rows = [asdict(entry) for entry in validation.errors(outlier, seed)]
    shown = ("mae", "rmse", "largest", "outliers", "failed")
    metrics = {f"{row['target']}: {name}": row[name] for row in rows for name in shown}
    table = (list(rows[0]), [[str(cell) if isinstance(cell, tuple) else cell for cell in row.values()] for row in rows])
    images = {"validation": folder / "validation.png"}
    log_results(loggers, metrics=metrics, images=images, tables={"validation": table})


def _write_table(validation: Validation, path: Path) -> None:
    """Writes the candidates as generate.py does, with the oracle's property beside the prediction."""
    import pyarrow
    import pyarrow.parquet

    prop = validation.chosen[0].properties[0]
    metadata = {"property": json.dumps(asdict(prop))}
    table = pyarrow.concat_tables([entry.to_arrow().replace_schema_metadata(metadata) for entry in validation.chosen])
    labels = pyarrow.array(torch.cat(list(validation.labels)).tolist(), pyarrow.float64(), from_pandas=True)
    table = table.append_column(pyarrow.field("label", labels.type, metadata={"unit": prop.unit}), labels)
    for name in ("id", "versions"):
        words = pyarrow.array([row[name] for row in validation.run.rows], pyarrow.string())
        table = table.append_column(pyarrow.field(name, words.type, metadata={"unit": ""}), words)
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def _markdown(errors: Sequence[TargetErrors], unit: str, outlier: float) -> str:
    interval = ["from", "to"]
    header = ["target", "designs", "failed", f"MAE [{unit}]", *interval, f"RMSE [{unit}]", f"largest [{unit}]"]
    header += [f"error > {outlier:g} {unit} [%]", *interval, "at the floor [%]", *interval, f"prediction MAE [{unit}]"]
    header += ["within one spread [%]", "within two spreads [%]", "rank correlation"]
    rows = []
    for entry in errors:
        distances = [entry.mae, *(entry.mae_interval or (None, None)), entry.rmse, entry.largest]
        shares = [*_percent(entry.outliers, entry.outliers_interval), *_percent(entry.at_floor, entry.at_floor_interval)]
        spread = [100 * entry.within_spread, 100 * entry.within_two, entry.rank_correlation]
        rows.append([entry.target, entry.labelled, entry.failed, *distances, *shares, entry.prediction_mae, *spread])
    return _INTRODUCTION + markdown_table(header, rows)


def _percent(share: float | None, interval: tuple[float, float] | None) -> list[float | None]:
    return [None if value is None else 100 * value for value in (share, *(interval or (None, None)))]


def _draw(validation: Validation, prototype: Prototype | None, path: Path) -> None:
    """Draws a row for each target: histogram of the labels, error against spread, and structures if designs are crystals."""
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
    axis.hist(labels.numpy(), bins=np.linspace(low - slack, high + slack, 41).tolist(), color=BLUE)
    for edge in {candidates.target.lower[0], candidates.target.upper[0]}:
        if np.isfinite(edge):
            axis.axvline(edge, color=VERMILLION, linestyle="--")
    axis.set(xlabel=f"{prop.name} [{prop.unit}]", ylabel="designs", title=candidates.target.format(candidates.properties))


def _draw_spread(axis: Axes, candidates: Candidates, labels: Float[Tensor, " n"]) -> None:
    prop = candidates.properties[0]
    spread, miss = candidates.std[:, 0].numpy(), (labels - candidates.mean[:, 0].double()).abs().numpy()
    axis.plot(spread, miss, ".", color=GREEN)
    top = float(spread.max()) * 1.05
    axis.plot([0, top], [0, top], color=GREY, linewidth=1)
    axis.set(xlabel=f"predicted spread [{prop.unit}]", ylabel=f"|label - prediction| [{prop.unit}]", xlim=(0, top or None))


def _draw_examples(axes: Sequence[Axes], candidates: Candidates, labels: Float[Tensor, " n"], prototype: Prototype) -> None:
    """Draws the design whose label is nearest to the target, then the designs that differ most from those drawn."""
    error = candidates.target.residual(labels.unsqueeze(1)).abs()[:, 0]
    unit = candidates.space.to_unit(candidates.designs)
    drawn = [int(error.argmin())]
    while len(drawn) < min(len(axes), len(labels)):
        drawn.append(int(torch.cdist(unit, unit[drawn]).amin(dim=1).argmax()))
    for axis, row in zip(axes, drawn, strict=False):
        design = dict(zip(candidates.space.names, candidates.designs[row].tolist(), strict=True))
        draw_structure(prototype.atoms(design), axis)
        axis.set_title(f"{float(labels[row]):.2f} {candidates.properties[0].unit}", fontsize="medium")
    for axis in axes:
        axis.set_axis_off()
