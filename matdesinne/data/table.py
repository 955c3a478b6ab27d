"""A table of labelled designs: validation, duplicates, splits, symmetry."""

from __future__ import annotations

__all__ = ["DesignTable", "Split", "check_table", "read_frame", "read_numbers", "to_numbers"]

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from matdesinne.bands import BandLabels, gap_level
from matdesinne.errors import ConfigError, DatasetError
from matdesinne.space import DesignSpace
from matdesinne.targets import Property

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class DesignTable:
    """Labelled designs in physical units.

    A property is NaN where a row has band energies on another grid than the property's only.
    """

    x: Float[Tensor, "n dx"]
    y: Float[Tensor, "n dy"]
    ids: Int[Tensor, " n"]  #: a number that names each row in its source
    bands: tuple[BandLabels, ...] = ()  #: auxiliary labels on grids of k-points, the property's own grid first

    def __len__(self) -> int:
        """Number of rows."""
        return self.x.shape[0]

    def take(self, rows: Int[Tensor, " m"]) -> DesignTable:
        """Keep some rows, in the given order."""
        return DesignTable(self.x[rows], self.y[rows], self.ids[rows], tuple(labels.take(rows) for labels in self.bands))

    def joined(self, other: DesignTable) -> DesignTable:
        """These rows and those of another table of the same parameters and properties.

        Grids of k-points that the other table lacks are without energies in its rows; grids that only it has are left out.

        Raises:
            DatasetError: if both have a grid of one name with different k-points.
        """
        bands = tuple(labels.joined(other._on(labels)) for labels in self.bands)
        return DesignTable(torch.cat([self.x, other.x]), torch.cat([self.y, other.y]), torch.cat([self.ids, other.ids]), bands)

    def _on(self, grid: BandLabels) -> BandLabels:
        """These rows' energies on the grid of another table."""
        found = [labels for labels in self.bands if labels.name == grid.name]
        return found[0] if found else grid._replace(energies=torch.full((len(self), *grid.energies.shape[1:]), torch.nan))

    def without(self, other: DesignTable) -> DesignTable:
        """The rows whose ids are not among those of another table of the same source."""
        return self.take((~torch.isin(self.ids, other.ids)).nonzero()[:, 0])

    def without_duplicates(self) -> DesignTable:
        """Keep the first of the rows whose designs are equal, in the order of the source."""
        _, group = torch.unique(self.x, dim=0, return_inverse=True)
        first = torch.full((int(group.max()) + 1,), len(self), dtype=torch.long)
        first.scatter_reduce_(0, group, torch.arange(len(self)), reduce="amin")
        return self.take(first.sort().values)

    def averaged(self) -> DesignTable:
        """One row for each design, in the order of the source: the mean of its measurements, under the id of the first.

        Raises:
            DatasetError: if the rows carry band energies, which have no mean.
        """
        if self.bands:
            raise DatasetError("Expected rows without band energies to average, got some: use data.replicates=first.")
        return replace(self, y=self._means()).without_duplicates()

    def same_designs(self, other: DesignTable) -> DesignTable:
        """The rows whose design is one of another table's, such as all measurements of averaged rows."""
        _, group = torch.unique(torch.cat([self.x, other.x]), dim=0, return_inverse=True)
        return self.take(torch.isin(group[: len(self)], group[len(self) :]).nonzero()[:, 0])

    def replicate_std(self) -> Float[Tensor, " dy"]:
        """Standard deviation of measurements of the same design, pooled over designs; NaN where none is repeated."""
        repeated = len(self) - len(self.x.unique(dim=0))
        return ((self.y - self._means()).square().sum(dim=0) / repeated).sqrt()

    def _means(self) -> Float[Tensor, "n dy"]:
        """For each row the mean of the measurements of its design."""
        _, group, count = torch.unique(self.x, dim=0, return_inverse=True, return_counts=True)
        total = torch.zeros(len(count), self.y.shape[1], dtype=torch.float64).index_add_(0, group, self.y.double())
        return (total / count.unsqueeze(1)).to(self.y)[group]

    def split(self, validation: float, test: float, seed: int) -> Split:
        """Split off fractions of the rows for validation and test at random, by a generator of its own.

        Raises:
            ConfigError: if a fraction is out of range.
            DatasetError: if a part stays empty.
        """
        numeric = all(isinstance(part, int | float) for part in (validation, test))
        if not (numeric and validation >= 0 and test >= 0 and validation + test < 1):
            raise ConfigError(
                f"Expected validation >= 0, test >= 0 and validation + test < 1, got {validation!r} and {test!r}: "
                "correct the fractions."
            )
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        held, kept = round(len(self) * test), round(len(self) * validation)
        parts = order[held + kept :], order[held : held + kept], order[:held]
        if len(parts[0]) == 0 or (validation > 0 and kept == 0):
            raise DatasetError(f"Expected enough rows to split, got {len(self)}: add rows or change the fractions.")
        return Split(*(self.take(part) for part in parts))


@dataclass(frozen=True)
class Split:
    """Disjoint rows for training, validation and testing."""

    train: DesignTable
    validation: DesignTable
    test: DesignTable

    def row_ids(self) -> dict[str, list[int]]:
        """The rows of each part by their names in the source."""
        return {part: getattr(self, part).ids.tolist() for part in ("train", "validation", "test")}


def check_table(table: DesignTable, space: DesignSpace, properties: Sequence[Property], source: str) -> DesignTable:
    """Check a table against its declaration.

    Raises:
        DatasetError: naming source, column and first bad row, for an empty table, a value that is not finite, a design
            outside the bounds, a value that is not allowed, a wrong sum, or a constant property.
    """
    if len(table) == 0:
        raise DatasetError(f"Expected rows in {source}, got an empty table: give a table with designs.")
    for i, parameter in enumerate(space.parameters):
        column = table.x[:, i]
        _check_finite(column, table.ids, parameter.name, source)
        slack = 1e-5 * (parameter.upper - parameter.lower) if parameter.bounded else 0.0
        outside = (column < parameter.lower - slack) | (column > parameter.upper + slack)
        if outside.any():
            row = int(outside.nonzero()[0, 0])
            raise DatasetError(
                f"Expected {parameter.name} within [{parameter.lower:g}, {parameter.upper:g}] {parameter.unit} in {source}, "
                f"got {column[row]:g} in row {int(table.ids[row])}: correct the row or widen the bounds."
            )
    for j, prop in enumerate(properties):
        column = table.y[:, j]
        if gap_level(prop.name) not in {labels.name for labels in table.bands}:  # a gap may be known on another grid only
            _check_finite(column, table.ids, prop.name, source)
        column = column[column.isfinite()]
        if len(column) > 1 and bool((column == column[:1]).all()):
            raise DatasetError(
                f"Expected a varying property {prop.name} in {source}, got {column[0]:g} {prop.unit} in every row: "
                "nothing can be learnt from it."
            )
    return replace(table, x=space.constraints.checked(table.x, table.ids, source)) if space.constraints else table


def read_numbers(
    path: Path,
    columns: Sequence[str],
    ignore: Sequence[str] = (),
    header: bool = True,
    labels: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Float[Tensor, "n c"]:
    """Read columns of numbers, as float64, from a CSV, Parquet or Excel file.

    Args:
        path: see `read_frame`.
        columns: names of the wanted columns; every other column is an error.
        ignore: further columns that may be there and are not read.
        header: whether a CSV file starts with the names; otherwise its columns are the wanted ones in order.
        labels: of columns of text; such a column becomes one column of 0 or 1 for each label.

    Raises:
        DatasetError: naming file, column and first bad row.
    """
    frame = read_frame(path, columns, header)
    extra = [str(name) for name in frame.columns if name not in columns and name not in ignore]
    if extra and not [name for name in columns if name not in frame.columns]:
        raise _wrong_columns(frame, columns, f"has also {extra}", str(path))
    return to_numbers(frame, columns, str(path), labels)


def read_frame(path: Path, columns: Sequence[str] = (), header: bool = True) -> pandas.DataFrame:
    """Read ``.parquet`` as Parquet, ``.xlsx`` as the first sheet of a workbook, everything else as CSV.

    Entries are text, except in Parquet; `columns` names those of a CSV file without a header.

    Raises:
        DatasetError: if there is no such file or it cannot be parsed.
    """
    import pandas

    try:
        if path.suffix == ".parquet":
            return pandas.read_parquet(path)
        if path.suffix in (".xlsx", ".xlsm"):
            return pandas.read_excel(path, dtype=str, keep_default_na=False, header=0 if header else None)
        with warnings.catch_warnings():
            # a row with more fields than names is only a warning to pandas
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            first, names = (0, None) if header else (None, list(columns))
            return pandas.read_csv(
                path, dtype=str, keep_default_na=False, index_col=False, skipinitialspace=True, header=first, names=names
            )
    except FileNotFoundError as error:
        raise DatasetError(f"Expected a table at {path}, got no such file: correct the path.") from error
    except Exception as error:  # the parsers raise what they raise
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"Expected a CSV, Parquet or Excel table at {path}, got {type(error).__name__} ({reason}): repair it."
        ) from error


def to_numbers(
    frame: pandas.DataFrame,
    columns: Sequence[str],
    source: str,
    labels: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Float[Tensor, "n c"]:
    """Columns of a table as float64; raises a `DatasetError` that names the source, the column and the first bad row."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise _wrong_columns(frame, columns, f"lacks {missing}", source)
    numbers: list[list[float]] = []
    for name in columns:
        known = labels.get(name)
        numbers += [_finite_numbers(frame[name], name, source)] if known is None else _one_hot(frame[name], known, source)
    return torch.tensor(numbers, dtype=torch.float64).T.reshape(-1, len(numbers))


def _one_hot(column: pandas.Series, labels: Sequence[str], source: str) -> list[list[float]]:
    entries = [str(entry).strip() for entry in column.tolist()]
    for row, entry in enumerate(entries):
        if entry not in labels:
            raise DatasetError(
                f"Expected one of {list(labels)} in column {column.name!r} of {source}, got {entry!r} in row {row}: correct "
                "the row, or add the value to the category."
            )
    return [[float(entry == label) for entry in entries] for label in labels]


def _wrong_columns(frame: pandas.DataFrame, columns: Sequence[str], problem: str, source: str) -> DatasetError:
    return DatasetError(
        f"Expected the columns {list(columns)} in {source}, got {[str(name) for name in frame.columns]}, which {problem}: "
        "rename or drop columns, declare them as parameters or properties, or list them under data.source.ignore."
    )


def _finite_numbers(column: pandas.Series, name: str, source: str) -> list[float]:
    numbers = []
    for row, entry in enumerate(column.tolist()):
        try:
            value = float(entry)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise DatasetError(
                f"Expected a finite number in column {name!r} of {source}, got {entry!r} in row {row}: correct the row."
            )
        numbers.append(value)
    return numbers


def _check_finite(column: Tensor, ids: Tensor, name: str, source: str) -> None:
    bad = ~column.isfinite()
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        raise DatasetError(f"Expected finite {name} in {source}, got {column[row]} in row {int(ids[row])}: correct the row.")
