"""Files of active learning: the labels of all rounds as one table, the error of each round, and a picture."""

from __future__ import annotations

__all__ = ["write_rounds"]

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.figure
import numpy as np
from jaxtyping import Float
from torch import Tensor

from matdesinne.files import atomic_path, write_json, write_text
from matdesinne.labelling.active import ActiveLearning, Round
from matdesinne.reporting.intervals import interval_cells, mean_interval
from matdesinne.reporting.palette import BLUE, VERMILLION
from matdesinne.reporting.tables import markdown_table

_INTRODUCTION = (
    "Distances of labels to targets. The two columns behind each mean are the ends of its 95 % interval (bootstrap). "
    "The change compares the same samples under both surrogates.\n\n"
)

Mean = tuple[float, tuple[float, float] | None]
"""A mean with its 95 % interval; a single value has none."""


@dataclass(frozen=True)
class _RoundErrors:
    """What the files say about one round, in the unit of the property; ``None`` where there are no labels."""

    training_rows: int
    fresh: int
    fresh_mae: Mean | None
    fresh_rmse: float | None
    fresh_mae_by_target: list[Mean | None]
    change: Mean | None
    chosen: int
    chosen_mae: Mean | None
    failed: int


def write_rounds(rounds: Sequence[Round], learning: ActiveLearning, seed: int) -> str:
    """Write ``labels.parquet``, ``active.json``, ``active.md`` and ``active.png``; returns the text of ``active.md``.

    The files go into the folder of the active learning; the seed is that of the bootstrap.
    """
    folder, unit = learning.folder, learning.model.properties[0].unit
    _join_labels(folder, len(rounds) - 1)
    errors = [_round_errors(entry, rounds[0], seed) for entry in rounds]
    content = {"unit": unit, "targets": list(learning.targets), "rounds": [asdict(entry) for entry in errors]}
    write_json(folder / "active.json", content)
    text = _markdown(errors, unit)
    write_text(folder / "active.md", text)
    _draw(errors, unit, folder / "active.png")
    return text


def _join_labels(folder: Path, rounds: int) -> None:
    """Writes the labels that joined the training rows, with the number of the round that each comes from."""
    import pyarrow
    import pyarrow.parquet

    tables = []
    for number in range(1, rounds + 1):
        table = pyarrow.parquet.read_table(folder / f"round_{number}" / "labels.parquet")
        field = pyarrow.field("round", pyarrow.int64(), metadata={"unit": ""})
        tables.append(table.append_column(field, pyarrow.array([number] * len(table), pyarrow.int64())))
    with atomic_path(folder / "labels.parquet") as temporary:
        pyarrow.parquet.write_table(pyarrow.concat_tables(tables), temporary)


def _round_errors(entry: Round, first: Round, seed: int) -> _RoundErrors:
    fresh, chosen = _finite(entry.fresh), _finite(entry.chosen)
    return _RoundErrors(
        training_rows=entry.training_rows,
        fresh=len(fresh),
        fresh_mae=_mean(fresh, seed),
        fresh_rmse=float(np.sqrt(np.square(fresh).mean())) if len(fresh) else None,
        fresh_mae_by_target=[_mean(_finite(row), seed) for row in entry.fresh],
        change=None if entry is first else _mean(_finite(entry.fresh - first.fresh), seed),
        chosen=len(chosen),
        chosen_mae=_mean(chosen, seed),
        failed=entry.failed,
    )


def _finite(values: Tensor) -> Float[np.ndarray, " n"]:
    flat = values.flatten().numpy()
    return flat[np.isfinite(flat)]


def _mean(values: Float[np.ndarray, " n"], seed: int) -> Mean | None:
    return (float(values.mean()), mean_interval(values, seed)) if len(values) else None


def _markdown(errors: Sequence[_RoundErrors], unit: str) -> str:
    interval = ["from", "to"]
    header = ["surrogate after round", "training rows", "fresh designs", f"MAE of fresh designs [{unit}]", *interval]
    header += [f"RMSE of fresh designs [{unit}]", f"change of MAE against round 0 [{unit}]", *interval]
    header += ["designs labelled next", f"MAE of these [{unit}]", *interval, "failed"]
    rows = []
    for number, entry in enumerate(errors):
        fresh, change, chosen = (
            interval_cells(*(m or (None, None))) for m in (entry.fresh_mae, entry.change, entry.chosen_mae)
        )
        shown = [entry.fresh, *fresh, entry.fresh_rmse, *change, entry.chosen, *chosen]
        rows.append([number, entry.training_rows, *shown, entry.failed])
    return _INTRODUCTION + markdown_table(header, rows)


def _draw(errors: Sequence[_RoundErrors], unit: str, path: Path) -> None:
    """Draws the error of fresh designs and of those chosen for training against the number of training rows."""
    figure = matplotlib.figure.Figure(figsize=(5, 3.4), layout="constrained")
    axis = figure.subplots()
    fresh, chosen = [entry.fresh_mae for entry in errors], [entry.chosen_mae for entry in errors]
    for values, color, label in ((fresh, BLUE, "fresh"), (chosen, VERMILLION, "chosen for labelling")):
        points = [(entry.training_rows, *mean) for entry, mean in zip(errors, values, strict=True) if mean is not None]
        means = np.array([mean for _, mean, _ in points])
        edges = np.array([interval or (mean, mean) for _, mean, interval in points]).reshape(-1, 2).T
        rows = [count for count, _, _ in points]
        axis.errorbar(rows, means, np.abs(edges - means), color=color, marker="o", capsize=3, label=label)
    axis.set(xlabel="training rows", ylabel=f"mean |label - target| [{unit}]", ylim=(0, None))
    axis.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
