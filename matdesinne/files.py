"""Files that are written completely or not at all, and the one writer of tables with units."""

from __future__ import annotations

__all__ = ["Columns", "arrow_table", "atomic_path", "list_folder", "read_json", "write_json", "write_table", "write_text"]

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

Columns = Mapping[str, tuple[str, "Sequence[object] | np.ndarray | pyarrow.Array"]]
"""A table as ``{name: (unit, values)}``, with an empty unit for text."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; it is renamed to `path` after the block, or removed if the block raises.

    The folder is made if it does not exist.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.stem}.{os.getpid()}.partial{final.suffix}")
    try:
        yield temporary
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: object) -> None:
    """Write plain containers as indented JSON, atomically.

    Raises:
        ValueError: if a number is not finite, which JSON cannot represent.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> object:
    """Read what `write_json` wrote; ``None`` if there is no such file or it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def arrow_table(columns: Columns, metadata: Mapping[str, str] | None = None) -> pyarrow.Table:
    """Returns an Arrow table with the unit of each column in the metadata of its field, and metadata of the whole table.

    Arrow infers the type of a plain list from its values. If there may be no rows, or none with a value, give a NumPy or Arrow
    array, which has a type.
    """
    import pyarrow

    arrays = [pyarrow.array(values) for _, values in columns.values()]
    fields = [
        pyarrow.field(name, array.type, metadata={"unit": unit})
        for (name, (unit, _)), array in zip(columns.items(), arrays, strict=True)
    ]
    return pyarrow.table(arrays, schema=pyarrow.schema(fields, metadata=metadata))


def write_table(path: str | Path, columns: Columns, metadata: Mapping[str, str] | None = None) -> None:
    """Write a table as ``.csv`` or, with units and metadata, see `arrow_table`, as ``.parquet``; atomically.

    Raises:
        ValueError: if the path has another ending.
    """
    import pyarrow.csv
    import pyarrow.parquet

    writers = {".csv": pyarrow.csv.write_csv, ".parquet": pyarrow.parquet.write_table}
    suffix = Path(path).suffix
    if suffix not in writers:
        raise ValueError(f"Expected a table with the ending .csv or .parquet, got {path}.")
    with atomic_path(path) as temporary:
        writers[suffix](arrow_table(columns, metadata), temporary)


def list_folder(folder: Path) -> str:
    """Returns the sentence that names the files in a folder, without hidden ones; commands print it last."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return f"Wrote {', '.join(names)} to {folder}"
