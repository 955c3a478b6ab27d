"""The declaration of a user's table, guessed from the table itself, as a file to edit."""

from __future__ import annotations

__all__ = ["Declaration", "guess_declaration"]

import itertools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from matdesinne.constraints import SUM_ROUNDING
from matdesinne.data.table import read_frame
from matdesinne.errors import DatasetError
from matdesinne.files import write_text

if TYPE_CHECKING:
    import pandas

_RESOLUTION = 0.01
"""Difference of a property that does not matter, in its standard deviations."""
_UNIT = re.compile(r"^(?P<name>.*?)\s*[\[(](?P<unit>[^\[\]()]+)[\])]\s*$")
_FEWEST_ROWS = 10
_MOST_VALUES, _REPEATS = 12, 3
"""A column of at most so many different values, with so many rows for each on average, takes these only."""
_MOST_TRIED = 0.5
"""Share of all combinations of few numbers that a table may hold; where it holds more, hardly a new design is left."""
_MOST_SUMMED = 12
"""Columns of one unit that are tried as components of a mixture."""


@dataclass(frozen=True)
class Declaration:
    """What `conf/data/csv.yaml` leaves open: the columns of a table.

    Args:
        path: of the table.
        parameters: name, unit, lower and upper bound of each, or its values instead.
        categories: name and labels of each column of text.
        mixtures: names and total of parameters that always add up to the same number.
        properties: name, unit and resolution of each.
        headers: the column of a name where it is another text.
        left_out: columns that are not used, with the reason.
    """

    path: str
    parameters: Sequence[dict[str, object]]
    categories: Sequence[dict[str, object]]
    mixtures: Sequence[tuple[list[str], float]]
    properties: Sequence[dict[str, object]]
    headers: dict[str, str]
    left_out: dict[str, str]

    def write(self, path: Path) -> None:
        """Write the file to edit; it is a configuration of the group ``data``."""
        content = {
            "source": {"path": self.path, "ignore": list(self.left_out), "headers": self.headers},
            "space": {
                "parameters": [{"_target_": "matdesinne.space.Parameter", **entry} for entry in self.parameters],
                "categories": [{"_target_": "matdesinne.space.Category", **entry} for entry in self.categories],
                "mixtures": [
                    {"_target_": "matdesinne.space.Mixture", "names": names, "total": total} for names, total in self.mixtures
                ],
            },
            "properties": [{"_target_": "matdesinne.targets.Property", **entry} for entry in self.properties],
        }
        body = OmegaConf.to_yaml(OmegaConf.create(content))
        head = (
            "# What design.py guessed of the table. Edit it and give the command again: what depends on it is trained anew.\n"
            "# Bounds are the range of the data. A parameter with `values` takes only these: give lower and upper instead if\n"
            "# it is continuous. See docs/own_data.md for the fields of parameters and properties.\n"
            "defaults:\n  - csv\n  - _self_\n\n"
        )
        write_text(path, head + body)

    def sentences(self) -> list[str]:
        """Say what was guessed, one line for each kind of column."""
        lines = [f"Parameters: {', '.join(map(_described, [*self.parameters, *self.categories]))}"]
        lines += [f"Mixture: {' + '.join(names)} = {total:g}" for names, total in self.mixtures]
        lines += [f"Left out: {name} ({reason})" for name, reason in self.left_out.items()]
        return lines


def guess_declaration(path: str, properties: Sequence[str]) -> Declaration:
    """Take every column but the properties as a parameter, within the range of its data.

    A unit is read from a header such as ``temperature [K]``. A column of few different numbers has these as allowed values,
    unless the rows hold most of their combinations already; one of few different texts is a category, and columns of one unit
    whose sum is the same in every row are a mixture. Constant columns, row numbers and columns of many texts are left out.

    Args:
        path: of a CSV, Parquet or Excel file.
        properties: columns of the properties, by their headers, with or without the unit.

    Raises:
        DatasetError: if the table cannot be read, has no header, no such property, no parameter, or fewer than 10 rows.
    """
    frame = read_frame(Path(path))
    _check_header(frame, path)
    if len(frame) < _FEWEST_ROWS:
        raise DatasetError(f"Expected at least {_FEWEST_ROWS} rows in {path}, got {len(frame)}: measure more designs.")
    names = _names([str(column) for column in frame.columns])
    chosen = [_find(name, names, path) for name in properties]
    numbers = {header: _numbers(frame[header]) for header in frame.columns}
    rest = {header: entry for header, entry in names.items() if header not in chosen}
    left_out = {header: reason for header in rest if (reason := _unusable(header, numbers[header], frame[header])) is not None}
    columns = {names[header]: column for header in rest if header not in left_out and (column := numbers[header]) is not None}
    mixtures = _mixtures(columns)
    mixed = {name for names, _ in mixtures for name in names}
    categories: list[dict[str, object]] = [
        {"name": name, "values": _labels(frame[header])}
        for header, (name, _) in rest.items()
        if header not in left_out and numbers[header] is None
    ]
    discrete = not _exhausted(columns.values(), bool(mixtures or categories))
    parameters = [
        {"name": name, "unit": unit, **_range(column, discrete and name not in mixed)}
        for (name, unit), column in columns.items()
    ]
    if not parameters and not categories:
        raise DatasetError(f"Expected columns of varying numbers beside {chosen} in {path}, got none: add parameters.")
    wanted = [_property(*names[header], numbers[header], header, path) for header in chosen]
    used = [entry["name"] for entry in [*parameters, *categories, *wanted]]
    headers = {name: header for header, (name, _) in names.items() if name in used and name != header}
    return Declaration(path, parameters, categories, mixtures, wanted, headers, left_out)


def _check_header(frame: pandas.DataFrame, path: str) -> None:
    """A first line of numbers is no header."""
    if all(_number(re.sub(r"\.\d+$", "", str(name))) is not None or _number(str(name)) is not None for name in frame.columns):
        raise DatasetError(
            f"Expected names of columns in the first line of {path}, got numbers: add a line such as temperature [K],yield [%]."
        )


def _names(headers: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Name and unit of each header; names are made of letters, digits and _, and distinct."""
    found: dict[str, tuple[str, str]] = {}
    taken: set[str] = set()
    for header in headers:
        match = _UNIT.match(header)
        text, unit = (match["name"], match["unit"].strip()) if match else (header, "1")
        name = re.sub(r"\W+", "_", text.strip()).strip("_") or "column"
        name = name if name.isidentifier() else f"p_{name}"
        while name in taken:
            name += "_"
        taken.add(name)
        found[header] = (name, unit)
    return found


def _find(wanted: str, names: dict[str, tuple[str, str]], path: str) -> str:
    for header, (name, _) in names.items():
        if wanted in (header, name):
            return header
    known = [name for name, _ in names.values()]
    raise DatasetError(f"Expected property out of the columns {known} of {path}, got {wanted!r}: correct property=.")


def _property(name: str, unit: str, column: list[float] | None, header: str, path: str) -> dict[str, object]:
    if column is None or len(set(column)) < 2:
        raise DatasetError(f"Expected varying numbers in the column {header!r} of {path}, got others: correct the table.")
    mean = sum(column) / len(column)
    std = math.sqrt(sum((value - mean) ** 2 for value in column) / len(column))
    return {"name": name, "unit": unit, "resolution": float(f"{_RESOLUTION * std:.2g}")}


def _unusable(header: str, column: list[float] | None, entries: pandas.Series) -> str | None:
    if column is None:
        if any(_number(entry) is not None for entry in entries):
            return "not all entries are numbers, or not all are text"
        labels = _labels(entries)
        if len(labels) > 1 and _few(labels, len(entries)):
            return None
        return (
            f"{len(labels)} different texts, fewer than {_REPEATS} rows for each" if len(labels) > 1 else f"always {labels[0]}"
        )
    if len(set(column)) == 1:
        return f"always {column[0]:g}"
    counts = header.strip().lower() in ("", "index", "id", "row", "unnamed: 0")
    steps = {later - earlier for earlier, later in itertools.pairwise(column)}
    return "the number of the row" if counts and steps == {1.0} else None


def _range(column: Sequence[float], discrete: bool) -> dict[str, object]:
    """The values of a column where they are few and it may be discrete, else its bounds."""
    values = sorted(set(column))
    return {"values": values} if discrete and _few(values, len(column)) else {"lower": values[0], "upper": values[-1]}


def _exhausted(columns: Collection[Sequence[float]], others: bool) -> bool:
    """Whether all columns have few numbers and the rows hold most of their combinations; `others` are not numbers alone."""
    if others or not all(_few(set(column), len(column)) for column in columns):
        return False
    tried = len(set(zip(*columns, strict=True)))
    return tried > _MOST_TRIED * math.prod(len(set(column)) for column in columns)


def _few(values: Collection[object], rows: int) -> bool:
    """Whether a column of so many rows has few different values, each of them several times."""
    return len(values) <= _MOST_VALUES and rows >= _REPEATS * len(values)


def _labels(column: pandas.Series) -> list[str]:
    return sorted({str(entry).strip() for entry in column.tolist()})


def _mixtures(columns: Mapping[tuple[str, str], Sequence[float]]) -> list[tuple[list[str], float]]:
    """Sets of columns of one unit, none negative, whose sum is the same in every row; the smallest sets first."""
    found: list[tuple[list[str], float]] = []
    for unit in dict.fromkeys(unit for _, unit in columns):
        names = [name for name, own in columns if own == unit and min(columns[name, unit]) >= 0][:_MOST_SUMMED]
        for size in range(2, len(names) + 1):
            for chosen in itertools.combinations(names, size):
                if set(chosen) <= set(names) and (total := _constant_sum([columns[name, unit] for name in chosen])) is not None:
                    found.append((list(chosen), total))
                    names = [name for name in names if name not in chosen]
    return found


def _constant_sum(columns: Sequence[Sequence[float]]) -> float | None:
    """The sum, if it is the same in every row but for rounding, and every column varies by much more than that."""
    sums = [math.fsum(row) for row in zip(*columns, strict=True)]
    allowed = SUM_ROUNDING * abs(sums[0])
    if any(max(column) - min(column) < 10 * allowed for column in columns):
        return None
    roundest = (float(f"{sum(sums) / len(sums):.{digits}g}") for digits in (1, 2, 3, 4, 6))
    return next((total for total in roundest if max(abs(each - total) for each in sums) < 0.9 * allowed), None)


def _numbers(column: pandas.Series) -> list[float] | None:
    """The entries, or nothing if one is no finite number."""
    found = [_number(entry) for entry in column.tolist()]
    return None if None in found else [value for value in found if value is not None]


def _number(entry: object) -> float | None:
    try:
        value = float(entry)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _described(entry: dict[str, object]) -> str:
    unit = "" if entry.get("unit", "1") == "1" else f" {entry['unit']}"
    if isinstance(values := entry.get("values"), list):
        texts = [value if isinstance(value, str) else f"{value:g}" for value in values]
        return f"{entry['name']} out of {{{', '.join(texts)}}}{unit}"
    return f"{entry['name']} {entry['lower']:g} to {entry['upper']:g}{unit}"
