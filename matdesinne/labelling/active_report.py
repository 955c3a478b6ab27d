"""Files of active learning: the labels of all rounds as one table, the error of each round, a picture."""

from __future__ import annotations

__all__ = ["write_rounds"]

from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np
from jaxtyping import Float
from torch import Tensor

from matdesinne.files import atomic_path, write_json
from matdesinne.labelling.active import ActiveLearning, Round
from matdesinne.reporting.intervals import mean_interval
from matdesinne.reporting.palette import BLUE, VERMILLION

_FRESH, _CHOSEN = BLUE, VERMILLION

Interval = tuple[float, float]


def write_rounds(rounds: Sequence[Round], learning: ActiveLearning, seed: int) -> str:
    """Write ``labels.parquet``, ``active.json``, ``.md`` and ``.png``; the text of the third is returned.

    Args:
        rounds: of `ActiveLearning.run`.
        learning: where they come from; the files go into its folder.
        seed: of the bootstrap.
    """
    folder, unit = learning.folder, learning.model.properties[0].unit
    _join_labels(learning, len(rounds) - 1, folder / "labels.parquet")
    entries = [_entry(entry, rounds[0], seed) for entry in rounds]
    write_json(folder / "active.json", {"unit": unit, "targets": list(learning.targets), "rounds": entries})
    text = _markdown(entries, unit)
    with atomic_path(folder / "active.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    _draw(entries, unit, folder / "active.png")
    return text


def _join_labels(learning: ActiveLearning, rounds: int, path: Path) -> None:
    """The labels that joined the training rows, with the round that each comes from."""
    import pyarrow
    import pyarrow.parquet

    parts = []
    for number in range(1, rounds + 1):
        part = pyarrow.parquet.read_table(learning.folder / f"round_{number}" / "labels.parquet")
        field = pyarrow.field("round", pyarrow.int64(), metadata={"unit": ""})
        parts.append(part.append_column(field, pyarrow.array([number] * len(part), pyarrow.int64())))
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.concat_tables(parts), temporary)


def _entry(entry: Round, first: Round, seed: int) -> dict[str, object]:
    """The numbers of a round; differences are of the same samples under both surrogates."""
    change = _known(entry.fresh - first.fresh)
    fresh, chosen = _known(entry.fresh), _known(entry.chosen)
    return {
        "training_rows": entry.training_rows,
        "fresh": len(fresh),
        "fresh_mae": _mean(fresh, seed),
        "fresh_rmse": float(np.sqrt(np.square(fresh).mean())) if len(fresh) else None,
        "fresh_mae_by_target": [_mean(_known(line), seed) for line in entry.fresh],
        "change": None if entry is first else _mean(change, seed),
        "chosen": len(chosen),
        "chosen_mae": _mean(chosen, seed),
        "failed": entry.failed,
    }


def _known(values: Tensor) -> Float[np.ndarray, " n"]:
    flat = values.flatten().numpy()
    return flat[np.isfinite(flat)]


def _mean(values: Float[np.ndarray, " n"], seed: int) -> tuple[float, Interval | None] | None:
    """Mean with its 95 % interval; no interval of a single value, nothing of none."""
    return (float(values.mean()), mean_interval(values, seed)) if len(values) else None


def _words(mean: tuple[float, Interval | None] | None) -> str:
    if mean is None:
        return ""
    value, interval = mean
    return f"{value:.4f}" if interval is None else f"{value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})"


def _markdown(entries: Sequence[dict[str, object]], unit: str) -> str:
    head = [
        "surrogate after round",
        "training rows",
        "fresh designs",
        f"their MAE [{unit}]",
        f"RMSE [{unit}]",
        f"change against round 0 [{unit}]",
        "labelled next",
        f"their MAE [{unit}]",
        "failed",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for number, entry in enumerate(entries):
        rmse = "" if entry["fresh_rmse"] is None else f"{entry['fresh_rmse']:.4f}"
        words = {name: _words(entry[name]) for name in ("fresh_mae", "change", "chosen_mae")}  # type: ignore[arg-type]
        cells = [number, entry["training_rows"], entry["fresh"], words["fresh_mae"], rmse, words["change"]]
        cells += [entry["chosen"], words["chosen_mae"], entry["failed"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return (
        "Distance of labels to targets; in brackets 95 % intervals (bootstrap). The change is of the same samples under both "
        "surrogates.\n\n" + "\n".join(lines) + "\n"
    )


def _draw(entries: Sequence[dict[str, object]], unit: str, path: Path) -> None:
    """Error of fresh designs and of those that were chosen for training, against the training rows."""
    figure = matplotlib.figure.Figure(figsize=(5, 3.4), layout="constrained")
    axis = figure.subplots()
    for key, color, label in (("fresh_mae", _FRESH, "fresh"), ("chosen_mae", _CHOSEN, "chosen for labelling")):
        shown = [(entry["training_rows"], entry[key]) for entry in entries if entry[key] is not None]
        rows = [pair[0] for pair in shown]
        means = np.array([pair[1][0] for pair in shown])  # type: ignore[index]
        edges = np.array([pair[1][1] or 2 * [pair[1][0]] for pair in shown]).reshape(-1, 2).T  # type: ignore[index]
        axis.errorbar(rows, means, np.abs(edges - means), color=color, marker="o", capsize=3, label=label)  # type: ignore[arg-type]
    axis.set(xlabel="training rows", ylabel=f"mean |label - target| [{unit}]")
    axis.set_ylim(bottom=0)
    axis.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
