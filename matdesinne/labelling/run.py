"""From points to a table of labels, in as many starts as it takes."""

from __future__ import annotations

__all__ = ["LabelRun", "label_points"]

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from matdesinne.files import atomic_path
from matdesinne.labelling.points import Points
from matdesinne.labelling.records import Records, design_id
from matdesinne.oracles.base import Oracle, Row, failed_row, label_array


@dataclass(frozen=True)
class LabelRun:
    """What a run of labelling left.

    Args:
        rows: labels of each point, in the order of the points.
        computed: how many of them this start computed; the others were there.
        tasks: in how many tasks.
        seconds: wall time of these in s.
        calculating: s that the calculations took, summed over the workers.
    """

    rows: Sequence[Row]
    computed: int
    tasks: int
    seconds: float
    calculating: float

    @property
    def failed(self) -> list[Row]:
        """The rows whose calculation failed."""
        return [row for row in self.rows if row["status"] == "failed"]

    def values(self, name: str) -> Float[Tensor, " n"]:
        """A label of every point, float64; NaN where there is none.

        Args:
            name: of a column that holds a number.
        """
        return torch.tensor([math.nan if row[name] is None else row[name] for row in self.rows], dtype=torch.float64)

    def report(self) -> str:
        """Counts in words, with the first reason for a failure."""
        failed = self.failed
        told = f", {len(failed):,} failed, the first because of: {failed[0]['reason']}" if failed else ""
        times = f"in {self.tasks:,} tasks and {self.seconds:.1f} s, calculations {self.calculating:.1f} s"
        return f"{len(self.rows):,} designs: {self.computed:,} labelled now {times}{told}"


def label_points(oracle: Oracle, points: Points, executor: Executor, folder: Path, retry: bool = False) -> LabelRun:
    """Label every design once and write ``labels.parquet``; what ``records.jsonl`` has already is not computed again.

    Args:
        oracle: computes the labels.
        points: the designs; equal ones are one row.
        executor: where the calculations run; it is shut down in the end.
        folder: of both files.
        retry: whether designs that failed are computed again.

    Raises:
        ConfigError: if the oracle cannot work here or the folder was started with other settings.
        LabellingError: if the records cannot be written.
    """
    oracle.check()
    settings, names = oracle.settings(), oracle.space.names
    designs = [dict(zip(names, values, strict=True)) for values in points.x.tolist()]
    ids = [design_id(design, settings) for design in designs]
    places: dict[str, int] = {}
    for place, key in enumerate(ids):
        places.setdefault(key, place)
    with Records(folder / "records.jsonl", settings) as records:
        known = {key for key, row in records.rows.items() if not (retry and row["status"] == "failed")}
        todo = [key for key in places if key not in known]
        heads = {key: {"id": key, "index": int(points.index[places[key]]), **designs[places[key]]} for key in todo}
        start = time.perf_counter()
        with tqdm(total=len(places), initial=len(places) - len(todo), unit="design", desc="labels") as bar:
            for keys, rows in _computed(oracle, points.x, {key: places[key] for key in todo}, executor):
                records.append([{**heads[key], **row} for key, row in zip(keys, rows, strict=True)])
                bar.update(len(rows))
        seconds = time.perf_counter() - start
        # designs of earlier points in this folder stay in front
        order = [key for key in records.rows if key not in places] + list(places)
        _write_labels([records.rows[key] for key in order], oracle, folder / "labels.parquet")
    calculating = math.fsum(float(records.rows[key]["seconds"]) for key in todo)  # type: ignore[arg-type]
    return LabelRun([records.rows[key] for key in ids], len(todo), math.ceil(len(todo) / oracle.chunk), seconds, calculating)


def _computed(
    oracle: Oracle, x: Float[Tensor, "n dx"], places: Mapping[str, int], executor: Executor
) -> Iterator[tuple[list[str], list[Row]]]:
    """Yield the ids and rows of each chunk as it ends."""
    keys = list(places)
    chunks = [keys[first : first + oracle.chunk] for first in range(0, len(keys), oracle.chunk)]
    try:
        running = {executor.submit(label_array, oracle, x[[places[key] for key in chunk]].numpy()): chunk for chunk in chunks}
        for future in as_completed(list(running)):
            chunk, error = running.pop(future), future.exception()
            yield chunk, [failed_row(oracle, str(error), 0.0) for _ in chunk] if error else future.result()
    finally:
        executor.shutdown(cancel_futures=True)


def _write_labels(rows: Sequence[Row], oracle: Oracle, path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = {"number": pyarrow.float64(), "count": pyarrow.int64(), "list": pyarrow.list_(pyarrow.float32())}
    text = pyarrow.string()
    columns = {"id": ("", text), "index": ("", pyarrow.int64())}
    columns |= {parameter.name: (parameter.unit, pyarrow.float64()) for parameter in oracle.space.parameters}
    columns |= {name: (column.unit, kinds[column.kind]) for name, column in oracle.columns().items()}
    columns |= {"seconds": ("s", pyarrow.float64()), "status": ("", text), "reason": ("", text), "versions": ("", text)}
    fields = [pyarrow.field(name, kind, metadata={"unit": unit}) for name, (unit, kind) in columns.items()]
    metadata = {"matdesinne": json.dumps({"space": oracle.space.to_dict(), "settings": oracle.settings()})}
    metadata |= {name: json.dumps(grid) for name, grid in oracle.kpoints().items()}
    with atomic_path(path) as temporary:
        table = pyarrow.Table.from_pylist(list(rows), schema=pyarrow.schema(fields, metadata=metadata))
        pyarrow.parquet.write_table(table, temporary)
