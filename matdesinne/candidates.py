"""The table that every stage of the pipeline takes and returns: designs, their target and their predicted properties."""

from __future__ import annotations

__all__ = ["Candidates", "read_candidates"]

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from matdesinne.errors import ConfigError, DatasetError
from matdesinne.files import atomic_path
from matdesinne.space import DesignSpace
from matdesinne.start import Start
from matdesinne.targets import Property, Target

if TYPE_CHECKING:
    import pyarrow

_LOGGER = logging.getLogger(__name__)
_EQUAL = 1e-4
"""Designs are equal where no parameter differs by more than about this many half-widths of the box."""


@dataclass(frozen=True)
class Candidates:
    """Table of candidate designs for one target, in physical units.

    Args:
        std: spread of the predictions `mean`: their standard deviation over the ensemble.
        stage: the last stage of these rows: ``"sampled"``, ``"selected"``, ``"localized"``, ``"minimized"`` or ``"refined"``.
        extra: further columns of numbers by their names, each with its unit; see `with_extra`.
        start: the design that the search started from, if any; the distance to it is a column.
    """

    space: DesignSpace
    properties: Sequence[Property]
    designs: Float[Tensor, "n dx"]
    target: Target
    mean: Float[Tensor, "n dy"]
    std: Float[Tensor, "n dy"]
    stage: str
    extra: Mapping[str, tuple[str, Float[Tensor, " n"]]] = field(default_factory=dict)
    start: Start | None = None

    def __post_init__(self) -> None:
        """Check that the columns of the table have distinct names."""
        names = [*self.space.names, *self.space.labels, "stage", *self._target_columns(), *self.extra]
        names += [name for prop in self.properties for name in (prop.name, f"{prop.name}_std")]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ConfigError(f"Expected distinct names of columns, got {repeated} twice: rename parameters or properties.")

    def __len__(self) -> int:
        """Number of rows."""
        return self.designs.shape[0]

    def take(self, rows: Bool[Tensor, " n"] | Int[Tensor, " m"], stage: str | None = None) -> Candidates:
        """Keep the rows of a mask, or of row numbers, and optionally give them a new stage."""
        extra = {name: (unit, values[rows]) for name, (unit, values) in self.extra.items()}
        designs, mean, std = self.designs[rows], self.mean[rows], self.std[rows]
        return replace(self, designs=designs, mean=mean, std=std, stage=stage or self.stage, extra=extra)

    def with_extra(self, name: str, unit: str, values: Float[Tensor, " n"]) -> Candidates:
        """Add a column of numbers, such as how many samples ended in a design; it stays with the rows and in the files."""
        return replace(self, extra={**self.extra, name: (unit, values)})

    def distinct(self) -> Candidates:
        """Keep one of equal designs, which there are where parameters have few allowed values; else all."""
        if not self.space.constraints:
            return self
        _, group = torch.unique((self.space.to_unit(self.designs) / _EQUAL).round(), dim=0, return_inverse=True)
        first = torch.full((int(group.max()) + 1,), len(self)).scatter_reduce(0, group, torch.arange(len(self)), "amin")
        if len(first) < len(self):
            _LOGGER.info(f"{len(self) - len(first):,} of {len(self):,} candidates repeat another one, and are dropped")
        return self.take(first.sort().values)

    def nearest_first(self) -> Candidates:
        """Sort the rows by their distance to the start, if there is one."""
        return self if self.start is None else self.take(self.start.distance(self.designs).argsort(stable=True))

    def with_rows(self, rows: Int[Tensor, " m"], other: Candidates) -> Candidates:
        """Put other candidates in the place of some rows."""
        pairs = ((self.designs, other.designs), (self.mean, other.mean), (self.std, other.std))
        designs, mean, std = (own.index_copy(0, rows, new) for own, new in pairs)
        return replace(self, designs=designs, mean=mean, std=std)

    def only(self, properties: Sequence[Property]) -> Candidates:
        """Keep the columns of some of the properties, and what the target asks of them.

        Raises:
            ConfigError: if the table lacks one of them.
        """
        missing = [prop.name for prop in properties if prop not in self.properties]
        if missing:
            names = [prop.name for prop in self.properties]
            raise ConfigError(f"Expected candidates with the property {missing[0]}, got {names}: give others.")
        columns = [list(self.properties).index(prop) for prop in properties]
        target, mean, std = self.target.aligned(self.properties, properties), self.mean[:, columns], self.std[:, columns]
        return replace(self, properties=tuple(properties), target=target, mean=mean, std=std)

    @property
    def error(self) -> Float[Tensor, "n dy"]:
        """Distance of each prediction to the target in the units of the properties; 0 inside an interval."""
        return self.target.residual(self.mean).abs()

    def mean_errors(self) -> dict[Property, float]:
        """Mean distance of the predictions to the target, in its unit, for each property that is asked for."""
        errors = self.error.mean(dim=0).tolist()
        return {self.properties[j]: errors[j] for j in self.target.asked_columns}

    @property
    def asked(self) -> list[Property]:
        """The properties that the target asks for."""
        return [self.properties[j] for j in self.target.asked_columns]

    def _target_columns(self) -> list[str]:
        asked = self.asked
        suffixes = [""] if len(asked) == 1 else [f"_{prop.name}" for prop in asked]
        return [f"{name}{suffix}" for suffix in suffixes for name in ("target", "target_lower", "target_upper")]

    def columns(self) -> dict[str, tuple[str, list[float] | list[str]]]:
        """Return the table as ``{name: (unit, values)}``, in the order of the columns in files.

        ``target``, ``target_lower`` and ``target_upper`` are what was asked; with ``_PROPERTY`` behind them where several
        properties were.
        """
        table, names = self.space.to_columns(self.designs), iter(self._target_columns())
        for j, prop in enumerate(self.properties):
            if self.target.asked[j]:
                for value in (self.target.values[j], self.target.lower[j], self.target.upper[j]):
                    table[next(names)] = (prop.unit, [value] * len(self))
            table[prop.name] = (prop.unit, self.mean[:, j].tolist())
            table[f"{prop.name}_std"] = (prop.unit, self.std[:, j].tolist())
        if self.start is not None:
            table["distance_to_start"] = ("1", self.start.distance(self.designs).tolist())
        for name, (unit, values) in self.extra.items():
            table[name] = (unit, values.tolist())
        table["stage"] = ("", [self.stage] * len(self))
        return table

    def to_arrow(self) -> pyarrow.Table:
        """Return the table with units in the metadata of the columns and space, properties and target in that of the schema."""
        import pyarrow

        columns, text = self.columns(), ["stage", *self.space.labels]
        fields = [
            pyarrow.field(name, pyarrow.string() if name in text else pyarrow.float64(), metadata={"unit": unit})
            for name, (unit, _) in columns.items()
        ]
        declaration = {
            "space": self.space.to_dict(),
            "properties": [asdict(prop) for prop in self.properties],
            "target": self.target.to_list(),
            "stage": self.stage,
            "extra": {name: unit for name, (unit, _) in self.extra.items()},
            **({} if self.start is None else {"start": self.start.to_dict()}),
        }
        schema = pyarrow.schema(fields, metadata={"matdesinne": json.dumps(declaration)})
        return pyarrow.table([values for _, values in columns.values()], schema=schema)

    def write_parquet(self, path: str | Path) -> None:
        """Write one row for each candidate, with the metadata of `to_arrow`."""
        import pyarrow.parquet

        with atomic_path(path) as temporary:
            pyarrow.parquet.write_table(self.to_arrow(), temporary)

    def write_csv(self, path: str | Path) -> None:
        """Write one row for each candidate below a header of column names."""
        import pyarrow.csv

        with atomic_path(path) as temporary:
            pyarrow.csv.write_csv(self.to_arrow(), temporary)

    @classmethod
    def read_parquet(cls, path: str | Path) -> Candidates:
        """Read what `write_parquet` wrote.

        Raises:
            DatasetError: if the file is missing, damaged, or was not written by `write_parquet`.
        """
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(path)
            declaration = json.loads(table.schema.metadata[b"matdesinne"])
            space = DesignSpace.from_dict(declaration["space"])
            properties = [Property(**entry) for entry in declaration["properties"]]
            designs = space.from_columns({name: table[name].to_pylist() for name in space.columns})
            columns = ([prop.name for prop in properties], [f"{prop.name}_std" for prop in properties])
            mean, std = (torch.stack([torch.tensor(table[name].to_pylist()) for name in names], dim=-1) for names in columns)
            target = Target.from_list(declaration["target"])
            start = Start.from_dict(declaration["start"]) if "start" in declaration else None
            units = declaration.get("extra", {})
            extra = {name: (unit, torch.tensor(table[name].to_pylist(), dtype=torch.float64)) for name, unit in units.items()}
            return cls(space, properties, designs, target, mean, std, declaration["stage"], extra, start)
        except Exception as error:  # the parsers may raise anything
            raise DatasetError(
                f"Expected a table of candidates at {path}, got something else ({error}): "
                "give the candidates.parquet that generate.py wrote."
            ) from error


def read_candidates(places: Sequence[str | Path]) -> list[Candidates]:
    """Read tables of candidates, one for each target, and sort them by target.

    Args:
        places: ``candidates.parquet`` files of ``generate.py``, or folders that contain them at any depth.

    Raises:
        DatasetError: if a file cannot be read, or there is none.
        ConfigError: if the tables have different properties or parameters.
    """
    paths = [Path(place) for place in places]
    files = [sorted(path.rglob("candidates.parquet")) if path.is_dir() else [path] for path in paths]
    tables = [Candidates.read_parquet(file) for file in itertools.chain(*files)]
    if not tables:
        raise DatasetError(f"Expected tables of candidates in {list(map(str, places))}, got none: give generate.py's folders.")
    for table in tables[1:]:
        if table.properties != tables[0].properties or table.space.names != tables[0].space.names:
            names = [[*table.space.names, *(prop.name for prop in table.properties)] for table in tables]
            raise ConfigError(
                f"Expected candidates of one material and property in all tables, got {names}: give them one at a time."
            )
    return sorted(tables, key=lambda table: table.target.rank)
