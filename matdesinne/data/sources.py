"""Where tables come from: the packaged sets, the published one, labels, a user's file, a table in memory."""

from __future__ import annotations

__all__ = ["FileSource", "LabelSource", "PackagedSource", "PublishedSource", "Source", "TableSource"]

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from matdesinne.bands import BandLabels, gap_level, scalar_level
from matdesinne.data.table import DesignTable, read_numbers, to_numbers
from matdesinne.errors import ConfigError, DatasetError
from matdesinne.space import DesignSpace
from matdesinne.targets import Property

if TYPE_CHECKING:
    import pandas
    import pyarrow

_DATASETS = Path(__file__).parents[1] / "datasets"
_FINE = "_fine"  # marks the columns of the second, finer grid of k-points


class Source(ABC):
    """Something that gives a table for a declared space and declared properties."""

    name: str
    """The source in messages."""

    @abstractmethod
    def load(self, space: DesignSpace, properties: Sequence[Property], root: Path | None = None) -> DesignTable:
        """Read the table.

        Args:
            space: the designs, in the order of the columns.
            properties: what they have.
            root: the folder of the source's files, where it is not the source's own choice.

        Raises:
            DatasetError: if it cannot be read.
        """

    def relaxed_positions(self) -> dict[int, list[float]]:
        """Cartesian positions [angstrom] of the relaxed atoms, by the id of a row, where the source has them."""
        return {}


class PackagedSource(Source):
    """A data set that comes with the package, as Parquet.

    The file holds one row a design; ``valence_energies`` and ``conduction_energies`` are lists over the k-points that the
    schema's metadata names (`matdesinne/datasets` has a card for each set). The name is that of the file without its ending.
    """

    def __init__(self, name: str) -> None:
        self.path = _DATASETS / f"{name}.parquet"
        self.name = self.path.name

    def load(self, space: DesignSpace, properties: Sequence[Property], root: Path | None = None) -> DesignTable:
        """Read designs, properties and band energies."""
        import pyarrow.parquet

        if not self.path.exists():
            known = sorted(path.stem for path in self.path.parent.glob("*.parquet"))
            raise DatasetError(f"Expected one of the packaged sets {known}, got {self.path.stem!r}: correct data.source.name.")
        table = pyarrow.parquet.read_table(self.path)
        if missing := [name for name in _columns(space, properties) if name not in table.schema.names]:
            raise DatasetError(
                f"Expected columns of {self.name}, {table.schema.names}, got {missing}: correct the names of parameters "
                "and properties."
            )
        return _labelled(table, space, properties, torch.tensor(table["index"].to_numpy().copy()))

    def relaxed_positions(self) -> dict[int, list[float]]:
        """Those of the column ``relaxed_positions``, if there is one."""
        import pyarrow.parquet

        if "relaxed_positions" not in pyarrow.parquet.read_schema(self.path).names:
            return {}
        table = pyarrow.parquet.read_table(self.path, columns=["index", "relaxed_positions"])
        return dict(zip(*(table[name].to_pylist() for name in table.schema.names), strict=True))


class LabelSource(Source):
    """What `label.py` wrote: the designs whose calculation succeeded.

    Args:
        path: ``labels.parquet``, or the name of a table that comes with the package, ``mos2_gpaw_active``.
        below: only designs whose ``index`` is smaller; ``None``: all.
    """

    def __init__(self, path: str | Path, below: int | None = None) -> None:
        packaged = _DATASETS / f"{path}.parquet"
        self.path = packaged if Path(path).parent == Path() and packaged.is_file() else Path(path)
        self.name, self.below = str(self.path), below

    def load(self, space: DesignSpace, properties: Sequence[Property], root: Path | None = None) -> DesignTable:
        """Read designs, properties and, where the table has them, band energies; rows are named -1, -2, ..."""
        table = self._done([*space.names, properties[0].name.removesuffix(_FINE)])
        return _labelled(table, space, properties, -1 - torch.arange(len(table)))

    def relaxed_positions(self) -> dict[int, list[float]]:
        """Those of the column ``relaxed_positions``, if there is one."""
        table = self._done([])
        known = table["relaxed_positions"].to_pylist() if "relaxed_positions" in table.schema.names else []
        return {-1 - row: positions for row, positions in enumerate(known)}

    def _done(self, wanted: Sequence[str]) -> pyarrow.Table:
        import pyarrow.compute
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(self.path)
        except (OSError, pyarrow.ArrowException) as error:
            raise self._foreign(" ".join(str(error).split())) from error
        limited = ["index"] if self.below is not None else []
        if missing := [name for name in [*wanted, *limited, "status"] if name not in table.schema.names]:
            raise self._foreign(f"a table without {missing}")
        if self.below is not None:
            table = table.filter(pyarrow.compute.less(table["index"], self.below))
        return table.filter(pyarrow.compute.equal(table["status"], "done"))

    def _foreign(self, got: str) -> DatasetError:
        return DatasetError(f"Expected labels.parquet of label.py at {self.path}, got {got}: correct the path.")


def _labelled(table: pyarrow.Table, space: DesignSpace, properties: Sequence[Property], ids: Int[Tensor, " n"]) -> DesignTable:
    """Designs, properties and the band energies of their levels on both grids, NaN in rows without."""

    def stack(names: Sequence[str]) -> Float[Tensor, "n c"]:
        absent = torch.full((len(table),), torch.nan)
        columns = [torch.tensor(table[name].to_numpy().copy()) if name in table.schema.names else absent for name in names]
        return torch.stack(columns, dim=1).float()

    def bands(ending: str) -> BandLabels:
        kpoints = torch.tensor(json.loads(table.schema.metadata[f"kpoints{ending}".encode()]))
        unknown, names = [math.nan] * len(kpoints), (f"valence_energies{ending}", f"conduction_energies{ending}")
        edges = torch.tensor([[values or unknown for values in table[name].to_pylist()] for name in names])
        return BandLabels(edges.reshape(2, len(table), len(kpoints)).transpose(0, 1), kpoints, f"band_gap{ending}")

    levels = [level for prop in properties if (level := gap_level(prop.name)) is not None]
    endings = [
        level.removeprefix("band_gap")
        for level in dict.fromkeys([*levels, *map(_other_grid, levels), *map(scalar_level, levels)])
    ]
    grids = [bands(ending) for ending in endings if f"kpoints{ending}".encode() in (table.schema.metadata or {})]
    return DesignTable(stack(space.names), stack([prop.name for prop in properties]), ids, tuple(grids))


def _other_grid(level: str) -> str:
    """The level of the same theory on the other grid of k-points."""
    return level.replace(_FINE, "") if _FINE in level else level.replace("band_gap", f"band_gap{_FINE}")


class PublishedSource(Source):
    """Files of a public repository at a pinned commit, verified by their checksums.

    They are taken from a folder, when `root` or an environment variable names one, or downloaded once into the user's cache.

    Args:
        designs, labels: names of two files without a header: with one design, and with its properties, a line.
        url: address of the folder of both files.
        sha256: checksum of each file by its name.
        variable: the environment variable that may name a folder that has the files.
    """

    def __init__(
        self, designs: str, labels: str, url: str, sha256: Mapping[str, str], variable: str = "MATDESINNE_MOS2_VASP"
    ) -> None:
        self.designs, self.labels, self.name = designs, labels, f"{designs} and {labels}"
        self.url, self.sha256, self.variable = url.rstrip("/") + "/", dict(sha256), variable

    def load(self, space: DesignSpace, properties: Sequence[Property], root: Path | None = None) -> DesignTable:
        """Fetch or find both files, verify them, read them."""
        if root is None and (named := os.environ.get(self.variable)):
            root = Path(named)
        x = read_numbers(self._file(self.designs, root), space.names, header=False)
        y = read_numbers(self._file(self.labels, root), [prop.name for prop in properties], header=False)
        if len(x) != len(y):
            raise DatasetError(
                f"Expected as many designs as labels in {self.name}, got {len(x)} and {len(y)}: fetch both again."
            )
        return DesignTable(x.float(), y.float(), torch.arange(len(x)))

    def _file(self, name: str, root: Path | None) -> Path:
        if root is None:
            return self._fetch(name)
        path = root / name
        if not path.is_file():
            raise DatasetError(f"Expected {name} in the folder {root}, got no such file: correct data.root or {self.variable}.")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256[name]:
            raise DatasetError(
                f"Expected {path} with sha256 {self.sha256[name]}, got {found}: the file was changed; fetch the published one."
            )
        return path

    def _fetch(self, name: str) -> Path:
        import pooch

        try:
            known, cache = f"sha256:{self.sha256[name]}", pooch.os_cache("matdesinne")
            return Path(pooch.retrieve(self.url + name, known_hash=known, fname=name, path=cache, progressbar=True))
        except Exception as error:  # network, disk and checksum errors alike
            raise DatasetError(
                f"Expected to fetch {name} from {self.url}, got {type(error).__name__} ({error}): check the network, or give a "
                f"folder that has it by data.root=... or the environment variable {self.variable}."
            ) from error


class FileSource(Source):
    """A user's own table: CSV with a header, Parquet or Excel, with one column for each parameter and each property.

    Args:
        path: of the file.
        ignore: columns that are there and not used.
        headers: the column of a parameter or property where it is not its name, such as ``temperature [K]``.
    """

    def __init__(self, path: str, ignore: Sequence[str] = (), headers: Mapping[str, str] | None = None) -> None:
        if not path:
            raise ConfigError("Expected the path of a table, got none: add data.source.path=FILE.csv.")
        self.path, self.ignore, self.headers = Path(path), tuple(ignore), dict(headers or {})
        self.name = str(self.path)

    def load(self, space: DesignSpace, properties: Sequence[Property], root: Path | None = None) -> DesignTable:
        """Read the declared columns; rows are named by their position."""
        path = self.path if root is None else root / self.path
        columns = [self.headers.get(name, name) for name in _columns(space, properties)]
        labels = {self.headers.get(name, name): values for name, values in space.labels.items()}
        values = read_numbers(path, columns, self.ignore, labels=labels)
        x, y = values.float().tensor_split([space.dimension], dim=1)
        return DesignTable(x, y, torch.arange(len(x)))


class TableSource(Source):
    """A table in memory.

    Args:
        table: a pandas DataFrame with a column for each parameter and property, or designs [n, dx] and properties [n, dy].

    Raises:
        DatasetError: if it is neither.
    """

    name = "the table in memory"

    def __init__(self, table: pandas.DataFrame | tuple[Tensor, Tensor]) -> None:
        if not (hasattr(table, "columns") or (isinstance(table, tuple) and len(table) == 2)):
            raise DatasetError(
                f"Expected a DataFrame, or two tensors (designs, properties), got {type(table).__name__}: give a table."
            )
        self.table = table

    def load(self, space: DesignSpace, properties: Sequence[Property], root: Path | None = None) -> DesignTable:
        """Take the columns by their names, or the tensors as they are; rows are numbered by their position."""
        if isinstance(self.table, tuple):
            x, y = (torch.as_tensor(values).float() for values in self.table)
            widths = (*x.shape[1:],), (*y.shape[1:],)
            if widths != ((space.dimension,), (len(properties),)) or len(x) != len(y):
                raise DatasetError(
                    f"Expected designs of shape [n, {space.dimension}] and properties of shape [n, {len(properties)}], got "
                    f"{list(x.shape)} and {list(y.shape)}: reshape them."
                )
            return DesignTable(x, y, torch.arange(len(x)))
        values = to_numbers(self.table, _columns(space, properties), self.name, space.labels)
        x, y = values.float().tensor_split([space.dimension], dim=1)
        return DesignTable(x, y, torch.arange(len(x)))


def _columns(space: DesignSpace, properties: Sequence[Property]) -> list[str]:
    return [*space.columns, *(prop.name for prop in properties)]
