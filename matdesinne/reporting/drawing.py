"""What all figures share: their files, the data behind them, labels with units."""

from __future__ import annotations

__all__ = ["axis_label", "bin_edges", "save_figure", "target_label", "write_data"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from matdesinne.candidates import Candidates
from matdesinne.files import atomic_path
from matdesinne.space import Parameter
from matdesinne.targets import Property

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def axis_label(quantity: Parameter | Property) -> str:
    """Name and unit of a quantity as the label of an axis: ``band gap [eV]``."""
    return f"{quantity.name.replace('_', ' ')} [{quantity.unit}]"


def bin_edges(low: float, high: float, count: int) -> Float[np.ndarray, " count"]:
    """Edges of histogram bins, also where all values are equal but for rounding."""
    size = max(abs(low), abs(high))
    slack = 0.0 if high - low > 1e-5 * size else 1e-3 * size or 1.0
    return np.linspace(low - slack, high + slack, count, dtype=np.float64)


def target_label(candidates: Candidates) -> str:
    """What candidates were made for, as a figure says it: ``band gap ≤ 0 eV``."""
    return candidates.target.format(candidates.properties).replace("_", " ").replace("<=", "≤").replace(">=", "≥")


def save_figure(figure: Figure, folder: Path, name: str) -> Path:
    """Write ``NAME.pdf`` with vectors and ``NAME.png``; the path of the latter is returned."""
    for suffix in (".pdf", ".png"):
        with atomic_path(folder / f"{name}{suffix}") as temporary:
            figure.savefig(temporary, dpi=120)
    return folder / f"{name}.png"


def write_data(path: Path, columns: Mapping[str, tuple[str, Sequence[object]]]) -> None:
    """Write the data behind a figure, as Parquet each column's unit in its field metadata.

    Args:
        path: a Parquet file, or CSV for the ending ``.csv``.
        columns: ``{name: (unit, values)}``; an empty unit for words.
    """
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    arrays = [pyarrow.array(values) for _, values in columns.values()]
    fields = [
        pyarrow.field(name, array.type, metadata={"unit": unit})
        for (name, (unit, _)), array in zip(columns.items(), arrays, strict=True)
    ]
    with atomic_path(path) as temporary:
        table = pyarrow.table(arrays, schema=pyarrow.schema(fields))
        (pyarrow.csv.write_csv if path.suffix == ".csv" else pyarrow.parquet.write_table)(table, temporary)
