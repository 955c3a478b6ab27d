"""How good a surrogate is on rows that nothing was trained or chosen on, beside what needs no surrogate."""

from __future__ import annotations

__all__ = ["Accuracy", "measure_accuracy", "read_accuracy", "write_accuracy"]

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from matdesinne.data.table import DesignTable
from matdesinne.files import read_json, write_json
from matdesinne.surrogates.base import Surrogate

_FILE = "accuracy.json"
_MOST_KNOWN, _MOST_TESTED = 20_000, 2000
"""Rows beyond which the errors no longer change."""


@dataclass(frozen=True)
class Accuracy:
    """Errors of one property on the test rows, in its unit.

    Values below the floor of a property, less its margin, are equal to each other but for the intervals.
    """

    name: str
    unit: str
    rows: int  #: number of test rows
    mae: float  #: mean absolute error of the surrogate
    std: float  #: standard deviation of the property over the training rows
    mean_mae: float  #: mean absolute error of the mean of the training rows
    nearest_mae: float  #: mean absolute error of the property of the nearest training row, distances in shares of the box
    within_68: float  #: share of test rows within the interval that should hold 68 %
    within_90: float  #: the same for 90 %
    lowest: float  #: smallest value of the property in the table
    highest: float  #: largest value of the property in the table

    def sentence(self) -> str:
        """Say it in one sentence."""
        unit = "" if self.unit == "1" else f" {self.unit}"
        return (
            f"Surrogate of {self.name}: MAE {self.mae:.3g}{unit} on {self.rows} test rows (mean of the table "
            f"{self.mean_mae:.3g}, nearest row {self.nearest_mae:.3g}); {100 * self.within_90:.0f} % of them lie in their "
            "90 % intervals."
        )


def measure_accuracy(surrogate: Surrogate, known: DesignTable, test: DesignTable) -> list[Accuracy]:
    """Compare predictions of test rows with their labels; a property without labelled test rows is left out.

    Args:
        surrogate: what was trained on the known rows.
        known: training rows, and validation rows where they were used, too.
        test: rows that nothing was trained or chosen on.
    """
    known = known.take(torch.arange(min(len(known), _MOST_KNOWN)))
    test = test.take(torch.arange(min(len(test), _MOST_TESTED)))
    if len(test) == 0:
        return []
    mean, std = surrogate.predict_many(test.x)
    found = []
    for j, prop in enumerate(surrogate.properties):
        before, rows = known.y[:, j].isfinite(), test.y[:, j].isfinite()
        if not (before.any() and rows.any()):
            continue
        labels, y = known.y[before, j], test.y[rows, j]
        scale = surrogate.scale.cpu()
        nearest = torch.cdist(scale(test.x[rows]), scale(known.x[before])).argmin(dim=1)
        predicted, values = mean[rows, j], torch.cat([labels, y])
        error = (predicted - y).abs()
        within = [(error <= surrogate.half_width(std, level)[rows, j]).float().mean().item() for level in (0.68, 0.9)]
        labels, y, predicted = (part.clamp_min(prop.lowest) for part in (labels, y, predicted))
        numbers = (
            (predicted - y).abs().mean(),
            labels.std(),
            (labels.mean() - y).abs().mean(),
            (labels[nearest] - y).abs().mean(),
            *map(torch.tensor, within),
            values.min(),
            values.max(),
        )
        found.append(Accuracy(prop.name, prop.unit, len(y), *(number.item() for number in numbers)))
    return found


def write_accuracy(found: Sequence[Accuracy], folder: Path) -> None:
    """Write it into the folder of a run."""
    write_json(folder / _FILE, [asdict(entry) for entry in found])


def read_accuracy(folder: Path) -> list[Accuracy]:
    """Read what `write_accuracy` wrote; nothing where there is no such file, as in older runs, or it is damaged."""
    content = read_json(folder / _FILE)
    try:
        return [Accuracy(**entry) for entry in content] if isinstance(content, list) else []
    except TypeError:
        return []
