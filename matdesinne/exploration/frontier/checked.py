"""Labels of an oracle beside a frontier."""

from __future__ import annotations

__all__ = ["CheckedDesigns", "read_checked"]

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.data.table import read_frame, to_numbers
from matdesinne.errors import DatasetError
from matdesinne.exploration.frontier.search import Frontier
from matdesinne.surrogates.base import Surrogate

LABELS = "labels.parquet"
"""What label.py writes into its folder."""


@dataclass(frozen=True)
class CheckedDesigns:
    """Designs with labels and predictions of the property and the cost.

    Args:
        designs: in physical units.
        labels: the property and the cost by the oracle, each in its unit.
        predictions: the same by the surrogate.
    """

    designs: Float[Tensor, "n dx"]
    labels: Float[Tensor, "n 2"]
    predictions: Float[Tensor, "n 2"]


def read_checked(folders: Sequence[Path], frontier: Frontier, surrogate: Surrogate) -> CheckedDesigns | None:
    """Read the labels of some folders of ``label.py``; failed designs are left out.

    Raises:
        DatasetError: if a folder has no labels, or these lack a property that the frontier is about.
    """
    parts = [_read(folder / LABELS, frontier, surrogate) for folder in folders]
    if not parts:
        return None
    designs = torch.cat([part.designs for part in parts])
    return CheckedDesigns(designs, *(torch.cat([getattr(p, name) for p in parts]) for name in ("labels", "predictions")))


def _read(path: Path, frontier: Frontier, surrogate: Surrogate) -> CheckedDesigns:
    own, space = frontier.designs.properties, surrogate.space
    frame = read_frame(path)
    needed = [prop for prop in own if prop == frontier.prop or prop.name in frontier.objective.formula.names]
    missing = [prop.name for prop in needed if prop.name not in frame.columns]
    if missing:
        raise DatasetError(f"Expected the column {missing[0]} in {path}, got others: let label.py compute it.")
    columns = [*space.columns, *(prop.name for prop in needed)]
    values = to_numbers(frame[frame[columns].notna().all(axis=1)], columns, str(path), space.labels)
    designs = values[:, : space.dimension]
    mean, std = surrogate.predict_many(designs.float())
    predicted = replace(frontier.designs, designs=designs.float(), mean=mean, std=std)
    measured = mean.double()
    measured[:, [own.index(prop) for prop in needed]] = values[:, space.dimension :]
    labelled = replace(predicted, mean=measured)
    return CheckedDesigns(designs, *(_both(table, frontier) for table in (labelled, predicted)))


def _both(table: Candidates, frontier: Frontier) -> Float[Tensor, "n 2"]:
    column = list(table.properties).index(frontier.prop)
    return torch.stack([table.mean[:, column].double(), frontier.objective.values(table)], dim=1)
