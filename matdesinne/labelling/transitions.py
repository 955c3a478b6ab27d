"""Whether transitions are real: both ends labelled by an oracle."""

from __future__ import annotations

__all__ = ["check_transitions"]

import torch
from hydra.utils import instantiate
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.exploration.designs import Exploration
from matdesinne.labelling.points import Points
from matdesinne.labelling.run import label_points
from matdesinne.oracles.base import Oracle
from matdesinne.reporting.drawing import write_data
from matdesinne.reporting.report import Section, Table


def check_transitions(subject: Exploration, config: DictConfig) -> Section:
    """Label both ends of the best transitions in ``transitions.parquet`` and compare the sides of the floor.

    Writes ``transitions_checked.parquet`` and ``.csv``, and the labels with their records in the folder ``labels``.

    Args:
        subject: whose folder has the table.
        config: with the keys ``oracle``, ``executor`` and ``transitions.best``.

    Raises:
        ConfigError: if the oracle does not compute the property or has other parameters.
    """
    prop, names = subject.surrogate.properties[0], subject.space.names
    oracle: Oracle = instantiate(config.oracle, _convert_="all")
    if prop.name not in oracle.columns() or oracle.space.names != names:
        raise ConfigError(
            f"Expected an oracle of {prop.name} for {list(names)}, got one of {list(oracle.columns())} for "
            f"{list(oracle.space.names)}: change oracle or material."
        )
    table = _first_rows(subject, config.transitions.best)
    count, ends = len(table["size"]), ("before", "after")
    x = torch.stack([torch.tensor([table[f"{name}_{end}"] for name in names]).T for end in ends], dim=1)
    points = Points(x.reshape(2 * count, len(names)).double(), torch.arange(2 * count))
    run = label_points(oracle, points, instantiate(config.executor), subject.folder / "labels")
    labels = run.values(prop.name).reshape(count, 2)
    predicted = torch.tensor([table[f"{prop.name}_{end}"] for end in ends]).T
    floor = prop.floor or 0.0
    right = ((labels > floor) == (predicted > floor)) & labels.isfinite()
    keys = ["knobs", "size", "probability", *(f"{prop.name}_{end}" for end in ends)]
    columns = {
        key: (units, table[key]) for key, units in zip(keys, ["", "half-widths of the box", "1", *[prop.unit] * 2], strict=True)
    }
    for k, end in enumerate(ends):
        columns[f"label_{end}"] = (prop.unit, labels[:, k].tolist())
        columns[f"right_{end}"] = ("", right[:, k].tolist())
    for suffix in ("parquet", "csv"):
        write_data(subject.folder / f"transitions_checked.{suffix}", columns)
    return _section(columns, right, _errors(labels, predicted), prop.name, prop.unit, run.report())


def _first_rows(subject: Exploration, count: int) -> dict[str, list]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(subject.folder / "transitions.parquet").slice(0, count).to_pydict()


def _errors(labels: Float[Tensor, "n 2"], predicted: Float[Tensor, "n 2"]) -> str:
    known = labels.isfinite()
    if not known.any():
        return "no label"
    misses = (labels - predicted)[known].abs()
    return f"mean absolute error of the prediction {misses.mean():.3f}, largest {misses.max():.3f}"


def _section(columns: dict[str, tuple[str, list]], right: Tensor, errors: str, name: str, unit: str, report: str) -> Section:
    real = int(right.all(dim=1).sum())
    text = (
        f"Both ends of the best {len(right)} transitions were labelled: {real} of {len(right)} are real, with the labels of "
        f"both on their sides; {int(right.sum())} of {right.numel()} ends are; {errors} {unit}.\n\n{report}"
    )
    keys = ["knobs", "size", "probability", f"{name}_before", "label_before", f"{name}_after", "label_after"]
    rows = [list(row) for row in zip(*(columns[key][1] for key in keys), strict=True)]
    for row, good in zip(rows, right.all(dim=1).tolist(), strict=True):
        row.append("yes" if good else "no")
    heads = ["knob", "change [half-widths]", "probability", f"before [{unit}]", "label", f"after [{unit}]", "label", "real"]
    return Section("Transitions, checked", text, tables=[Table("The same order as above.", heads, rows)])
