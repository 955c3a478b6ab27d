"""The contract of every oracle: rows of labels for designs, where a design without labels is a row with its reason."""

from __future__ import annotations

__all__ = ["Column", "Columns", "Oracle", "Row", "Value", "failed_row", "label_array"]

import functools
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne import __version__
from matdesinne.errors import ConfigError
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype

Value = int | float | str | list[float] | None
"""What a cell of the table holds: a number, a word, one number for each k-point, or nothing."""
Columns = Mapping[str, Sequence[Value]]
"""Labels of n designs by their names."""
Row = dict[str, Value]
"""Labels of one design, with ``status`` ("done" or "failed"), ``reason``, ``seconds`` and ``versions``."""


class Column(NamedTuple):
    """What a column of labels holds.

    Args:
        unit: e.g. ``"eV"``; empty for a count.
        kind: a number, a count, or a list of numbers over k-points.
    """

    unit: str
    kind: Literal["number", "count", "list"] = "number"


class Oracle(ABC):
    """Computes the labels of designs.

    A subclass fills `_label`, says what its columns are, and names what decides the result.

    Args:
        space: the designs, in the order of the columns of x.
    """

    chunk = 1
    """Designs in one task for a worker."""
    packages: Sequence[str] = ("matdesinne",)
    """Distributions whose versions go into every row."""
    prototype: Prototype | None = None
    """Atoms and fractional positions, where designs are crystals."""

    def __init__(self, space: DesignSpace) -> None:
        self.space = space

    @abstractmethod
    def columns(self) -> dict[str, Column]:
        """The labels by their names, in the order of the table."""

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Plain containers that say what decides the labels of a design; they are part of its id."""

    def kpoints(self) -> dict[str, list[list[float]]]:
        """Fractional k-points in the plane of the labels that are lists, by the name of their grid."""
        return {}

    def check(self) -> None:  # noqa: B027
        """Check, before anything is started, that labels can be computed here.

        Raises:
            ConfigError: if something is missing.
        """

    def check_column(self, name: str) -> None:
        """Check that it computes a label.

        Raises:
            ConfigError: if it does not.
        """
        if name not in self.columns():
            raise ConfigError(f"Expected an oracle of {name}, got one of {list(self.columns())}: e.g. oracle.fine=true.")

    def label(self, x: Float[Tensor, "n dx"]) -> list[Row]:
        """Compute the labels of designs, one row each; a design that has none gives a row with its reason.

        Args:
            x: designs in physical units, float64, shape [n, dx].
        """
        start = time.perf_counter()
        try:
            columns = self._label(x)
        except Exception as error:
            if len(x) > 1:
                # one bad design must not take its neighbours along
                return [row for design in x.split(1) for row in self.label(design)]
            return [failed_row(self, f"{type(error).__name__}: {error}", time.perf_counter() - start)]
        seconds = (time.perf_counter() - start) / max(len(x), 1)
        return [self._row({name: values[i] for name, values in columns.items()}, seconds) for i in range(len(x))]

    def versions(self) -> str:
        """The versions of what computes, for the table."""
        return _versions(tuple(self.packages))

    @abstractmethod
    def _label(self, x: Float[Tensor, "n dx"]) -> Columns:
        """Labels under the names of `columns`; any exception makes the designs fail."""

    def _row(self, labels: Row, seconds: float) -> Row:
        bad = [name for name, value in labels.items() if not _finite(value)]
        if bad:
            return failed_row(self, f"The calculation ended without a finite {bad[0]}.", seconds)
        return {**labels, "status": "done", "reason": "", "seconds": round(seconds, 6), "versions": self.versions()}


def failed_row(oracle: Oracle, reason: str, seconds: float) -> Row:
    """The row of a design without labels.

    Args:
        oracle: whose names it carries.
        reason: why; it is kept in one line.
        seconds: that it took to find out.
    """
    row: Row = dict.fromkeys(oracle.columns())
    return {
        **row,
        "status": "failed",
        "reason": " ".join(reason.split()),
        "seconds": round(seconds, 6),
        "versions": oracle.versions(),
    }


def label_array(oracle: Oracle, x: Float[np.ndarray, "n dx"]) -> list[Row]:
    """`Oracle.label` as a task for a worker: an array travels by value, a tensor through shared memory."""
    return oracle.label(torch.from_numpy(x))


@functools.cache
def _versions(packages: Sequence[str]) -> str:
    # a checkout is not an installed distribution
    return ", ".join(f"{name} {__version__ if name == 'matdesinne' else version(name)}" for name in packages)


def _finite(value: Value) -> bool:
    if isinstance(value, list):
        return all(math.isfinite(entry) for entry in value)
    return value is not None and (isinstance(value, str) or math.isfinite(value))
