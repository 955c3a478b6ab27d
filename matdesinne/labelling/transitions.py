"""Labels of both ends of transitions, which tell whether they are real."""

from __future__ import annotations

__all__ = ["check_transitions"]

from pathlib import Path

import torch
from hydra.utils import instantiate
from jaxtyping import Bool, Float
from omegaconf import DictConfig
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.exploration.transitions.transition import Transitions
from matdesinne.files import Columns, write_table
from matdesinne.labelling.points import Points
from matdesinne.labelling.run import label_points
from matdesinne.oracles.base import Oracle
from matdesinne.reporting.report import Section, Table


def check_transitions(transitions: Transitions, config: DictConfig, folder: Path) -> Section:
    """Label both ends of transitions, and compare the sides of the labels with those of the predictions.

    Writes ``transitions_checked.parquet`` and ``.csv``, and the labels with their records in the folder ``labels``.

    Raises:
        ConfigError: if the oracle does not compute the property or has other parameters.
    """
    prop, names = transitions.prop, transitions.space.names
    oracle: Oracle = instantiate(config.oracle, _convert_="all")
    if prop.name not in oracle.columns() or oracle.space.names != names:
        raise ConfigError(
            f"Expected an oracle of {prop.name} for {list(names)}, got one of {list(oracle.columns())} for "
            f"{list(oracle.space.names)}: change oracle or material."
        )
    designs = torch.stack([transitions.before, transitions.after], dim=1).double().flatten(0, 1)
    run = label_points(oracle, Points(designs, torch.arange(len(designs))), instantiate(config.executor), folder / "labels")
    labels = run.values(prop.name).reshape(len(transitions), 2)
    threshold = transitions.levels.threshold
    right = ((labels > threshold) == (transitions.value > threshold)) & labels.isfinite()
    table = transitions.columns()
    columns = {key: table[key] for key in ("knobs", "size", "probability", f"{prop.name}_before", f"{prop.name}_after")}
    for k, end in enumerate(("before", "after")):
        columns |= {f"label_{end}": (prop.unit, labels[:, k].tolist()), f"right_{end}": ("", right[:, k].tolist())}
    for suffix in ("parquet", "csv"):
        write_table(folder / f"transitions_checked.{suffix}", columns)
    real = right.all(dim=1)
    text = (
        f"Both ends of the best {len(right)} transitions were labelled. {int(real.sum())} of {len(right)} are real: the labels "
        f"of both ends are on the predicted sides. {int(right.sum())} of {right.numel()} ends are on the predicted side; "
        f"{_errors(labels, transitions)}.\n\n{run.report()}"
    )
    return Section("Transitions, checked", text, tables=[_table(columns, real, prop.name, prop.unit)])


def _errors(labels: Float[Tensor, "n 2"], transitions: Transitions) -> str:
    known = labels.isfinite()
    if not known.any():
        return "there is no label"
    errors, unit = (labels - transitions.value)[known].abs(), transitions.prop.unit
    return f"the predictions have a mean absolute error of {errors.mean():.3f} {unit}, at most {errors.max():.3f} {unit}"


def _table(columns: Columns, real: Bool[Tensor, " n"], name: str, unit: str) -> Table:
    keys = ["knobs", "size", "probability", f"{name}_before", "label_before", f"{name}_after", "label_after"]
    rows = zip(*(columns[key][1] for key in keys), ["yes" if each else "no" for each in real.tolist()], strict=True)
    heads = ["knob", "change [half-widths]", "probability", f"before [{unit}]", "label", f"after [{unit}]", "label", "real"]
    return Table("The transitions are in the same order as above.", heads, list(rows))
