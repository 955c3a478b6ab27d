"""The interface of every oracle: rows of labels for designs; a design whose calculation fails is a row with the reason."""

from __future__ import annotations

__all__ = ["Column", "Labels", "Oracle", "Row", "Value", "failed_row", "label_array"]

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
"""A cell of the table of labels: a number, a text, a list of numbers, or nothing."""
Labels = Mapping[str, Sequence[Value]]
"""Labels of n designs by their names."""
Row = dict[str, Value]
"""Labels of one design, with ``status`` ("done" or "failed"), ``reason``, ``seconds`` and ``versions``."""


class Column(NamedTuple):
    """Unit of a column of labels (empty for a count), and whether its cells are numbers, counts or lists of numbers."""

    unit: str
    kind: Literal["number", "count", "list"] = "number"


class Oracle(ABC):
    """Computes the labels of the designs of a space. A subclass implements `_label`, `columns`, and `settings`."""

    chunk = 1
    """Number of designs in one task for a worker."""
    packages: Sequence[str] = ("matdesinne",)
    """Distributions whose versions are written into every row."""
    prototype: Prototype | None = None
    """Atoms and fractional positions, where designs are crystals."""

    def __init__(self, space: DesignSpace) -> None:
        self.space = space

    @abstractmethod
    def columns(self) -> dict[str, Column]:
        """Unit and kind of each label by its name, in the order of the table."""

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Everything besides the design that determines its labels, as plain containers; it is part of the design's id."""

    def kpoints(self) -> dict[str, list[list[float]]]:
        """Fractional in-plane k-points of the labels that are lists over k-points, by the name of their grid."""
        return {}

    def check(self) -> None:  # noqa: B027
        """Check, before any calculation starts, that labels can be computed here.

        Raises:
            ConfigError: if something is missing.
        """

    def check_column(self, name: str) -> None:
        """Check that the oracle computes a label.

        Raises:
            ConfigError: if it does not.
        """
        if name not in self.columns():
            raise ConfigError(
                f"Expected an oracle of {name}, got one of {list(self.columns())}: switch on its option, e.g. "
                "oracle.second_kpoints=18 for band_gap_fine."
            )

    def label(self, x: Float[Tensor, "n dx"]) -> list[Row]:
        """Compute the labels of designs, one row each; a design whose calculation fails gives a row with the reason."""
        start = time.perf_counter()
        try:
            columns = self._label(x)
        except Exception as error:
            if len(x) > 1:
                # the other designs of the task must not fail with it
                return [row for design in x.split(1) for row in self.label(design)]
            return [failed_row(self, f"{type(error).__name__}: {error}", time.perf_counter() - start)]
        seconds = (time.perf_counter() - start) / max(len(x), 1)
        return [self._row({name: values[i] for name, values in columns.items()}, seconds) for i in range(len(x))]

    def versions(self) -> str:
        """The versions of the packages that compute the labels, as text."""
        return _versions(tuple(self.packages))

    @abstractmethod
    def _label(self, x: Float[Tensor, "n dx"]) -> Labels:
        """Returns labels under the names of `columns`; after an exception the designs have failed."""

    def _row(self, labels: Row, seconds: float) -> Row:
        bad = [name for name, value in labels.items() if not _finite(value)]
        if bad:
            return failed_row(self, f"The calculation ended without a finite {bad[0]}.", seconds)
        return {**labels, "status": "done", "reason": "", "seconds": round(seconds, 6), "versions": self.versions()}


def failed_row(oracle: Oracle, reason: str, seconds: float) -> Row:
    """Returns the row of a design whose calculation failed."""
    row: Row = dict.fromkeys(oracle.columns())
    row |= {"status": "failed", "reason": " ".join(reason.split())}
    return row | {"seconds": round(seconds, 6), "versions": oracle.versions()}


def label_array(oracle: Oracle, x: Float[np.ndarray, "n dx"]) -> list[Row]:
    """`Oracle.label` as a task for a worker, with an array because a tensor would be sent through shared memory."""
    return oracle.label(torch.from_numpy(x))


@functools.cache
def _versions(packages: Sequence[str]) -> str:
    # a checkout has no distribution
    return ", ".join(f"{name} {__version__ if name == 'matdesinne' else version(name)}" for name in packages)


def _finite(value: Value) -> bool:
    if isinstance(value, list):
        return all(math.isfinite(entry) for entry in value)
    return value is not None and (isinstance(value, str) or math.isfinite(value))
