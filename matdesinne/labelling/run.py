"""Labels a table of designs; a run that was interrupted continues where it stopped."""

from __future__ import annotations

__all__ = ["LabelRun", "label_points"]

import contextlib
import json
import math
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from matdesinne.files import write_table
from matdesinne.labelling.points import Points
from matdesinne.labelling.records import Records, design_id
from matdesinne.oracles.base import Oracle, Row, failed_row, label_array


@dataclass(frozen=True)
class LabelRun:
    """The result of `label_points`.

    Args:
        rows: labels of each point, in the order of the points.
        computed: number of designs that this call computed; the others were in the records.
        tasks: number of tasks that these were divided into.
        seconds: wall time of the tasks.
        calculating: seconds that the calculations took, summed over the workers.
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
        """Returns one label of every point, float64; NaN where there is none."""
        return torch.tensor([math.nan if row[name] is None else row[name] for row in self.rows], dtype=torch.float64)

    def report(self) -> str:
        """Returns the counts and times as a sentence, with the reason of the first failure."""
        failed = self.failed
        failures = f", {len(failed):,} failed, the first because of: {failed[0]['reason']}" if failed else ""
        times = f"in {self.tasks:,} tasks and {self.seconds:.1f} s, calculations {self.calculating:.1f} s"
        return f"{len(self.rows):,} designs: {self.computed:,} labelled now {times}{failures}"


def label_points(oracle: Oracle, points: Points, executor: Executor, folder: Path, retry: bool = False) -> LabelRun:
    """Label every design once and write ``labels.parquet``; designs that ``records.jsonl`` has are not computed again.

    Equal designs are labelled once, and those that failed again only with `retry`. The executor is shut down at the end.

    Raises:
        ConfigError: if the oracle cannot work here, or the folder was started with other settings.
        LabellingError: if the records cannot be written.
    """
    oracle.check()
    settings, names = oracle.settings(), oracle.space.names
    designs = [dict(zip(names, values, strict=True)) for values in points.x.tolist()]
    ids = [design_id(design, settings) for design in designs]
    first_row: dict[str, int] = {}
    for row, key in enumerate(ids):
        first_row.setdefault(key, row)
    with Records(folder / "records.jsonl", settings) as records:
        known = {key for key, row in records.rows.items() if not (retry and row["status"] == "failed")}
        todo = {key: row for key, row in first_row.items() if key not in known}
        start = time.perf_counter()
        bar = tqdm(total=len(first_row), initial=len(first_row) - len(todo), unit="design", desc="labels")
        with bar, contextlib.closing(_compute(oracle, points.x, todo, executor)) as chunks:
            for keys, labels in chunks:
                heads = [{"id": key, "index": int(points.index[todo[key]]), **designs[todo[key]]} for key in keys]
                records.append([{**head, **row} for head, row in zip(heads, labels, strict=True)])
                bar.update(len(keys))
        seconds = time.perf_counter() - start
        # designs of earlier points in this folder come first
        order = [key for key in records.rows if key not in first_row] + list(first_row)
        _write_labels([records.rows[key] for key in order], oracle, folder / "labels.parquet")
    calculating = math.fsum(float(records.rows[key]["seconds"]) for key in todo)  # type: ignore[arg-type]
    return LabelRun([records.rows[key] for key in ids], len(todo), math.ceil(len(todo) / oracle.chunk), seconds, calculating)


def _compute(
    oracle: Oracle, x: Float[Tensor, "n dx"], todo: Mapping[str, int], executor: Executor
) -> Generator[tuple[list[str], list[Row]]]:
    """Yields the ids and labels of each chunk when it is finished; when it is closed early, running tasks are dropped."""
    keys = list(todo)
    chunks = [keys[first : first + oracle.chunk] for first in range(0, len(keys), oracle.chunk)]
    wait = False
    try:
        running = {executor.submit(label_array, oracle, x[[todo[key] for key in chunk]].numpy()): chunk for chunk in chunks}
        for future in as_completed(list(running)):
            chunk, error = running.pop(future), future.exception()
            yield chunk, [failed_row(oracle, str(error), 0.0) for _ in chunk] if error else future.result()
        wait = True
    finally:
        executor.shutdown(wait, cancel_futures=True)


def _write_labels(rows: Sequence[Row], oracle: Oracle, path: Path) -> None:
    import pyarrow

    text, number, count = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
    kinds = {"number": number, "count": count, "list": pyarrow.list_(pyarrow.float32())}
    columns = {"id": ("", text), "index": ("", count)}
    columns |= {parameter.name: (parameter.unit, number) for parameter in oracle.space.parameters}
    columns |= {name: (column.unit, kinds[column.kind]) for name, column in oracle.columns().items()}
    columns |= {"seconds": ("s", number), "status": ("", text), "reason": ("", text), "versions": ("", text)}
    arrays = {name: (unit, pyarrow.array([row.get(name) for row in rows], kind)) for name, (unit, kind) in columns.items()}
    metadata = {"matdesinne": json.dumps({"space": oracle.space.to_dict(), "settings": oracle.settings()})}
    write_table(path, arrays, metadata | {name: json.dumps(grid) for name, grid in oracle.kpoints().items()})
