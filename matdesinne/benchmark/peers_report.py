"""Results of the comparison with sbi as JSON, Markdown and a figure."""

from __future__ import annotations

__all__ = ["PeerRow", "write_peers"]

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

import matplotlib.axes
import matplotlib.figure
import numpy as np

from matdesinne.benchmark.report import grouped, records_table
from matdesinne.files import atomic_path, write_json, write_text
from matdesinne.reporting.palette import CYCLE


@dataclass(frozen=True)
class PeerRow:
    """One score of one method on one task."""

    data: str  # name of the task, a data set
    method: str  # label of the model
    seed: int
    score: str  # its name, with a unit where it has one
    value: float  # smaller is better
    seconds_training: float  # CPU time over all threads, with the last validation
    seconds_sampling: float  # CPU time of 10,000 samples for one target
    epochs: int  # passes over the training rows, the last one perhaps in part
    parameters: int


def write_peers(folder: Path, rows: Sequence[PeerRow], seconds: float) -> str:
    """Write ``peers.json``, ``peers.md`` and ``peers.png``; returns the text of the second."""
    write_json(folder / "peers.json", {"seconds": seconds, "rows": [asdict(row) for row in rows]})
    text = (
        f"Each model was trained on the same rows for at most {seconds:g} s of CPU time, with the settings of its file in "
        "conf/model (weights of the best epoch on validation rows; the learning rate follows the time). The models of sbi see "
        "the same standardised designs and properties as ours. Errors are those of samples before any selection or "
        "localization. Smaller is better; the best C2ST is 0.5.\n"
    )
    for group in grouped(rows, "data").values():
        lines = [_line(several) for several in grouped(group, "method").values()]
        columns = list(dict.fromkeys(column for line in lines for column in line))
        text += f"\n## {group[0].data}\n\n" + records_table(
            [{column: line.get(column) for column in columns} for line in lines]
        )
    write_text(folder / "peers.md", text)
    _draw(folder / "peers.png", rows)
    return text


def _line(rows: Sequence[PeerRow]) -> dict[str, object]:
    """Means over the seeds, by the name of the column, and their standard deviations."""
    seeds = len({row.seed for row in rows})
    cells: dict[str, object] = {"method": rows[0].method, "seeds": seeds}
    for group in grouped(rows, "score").values():
        name = group[0].score
        cells[name] = fmean(row.value for row in group)
        if len(group) > 1:
            cells[f"std of {name}"] = stdev(row.value for row in group)
    cells["training [CPU s]"] = fmean(row.seconds_training for row in rows)
    cells["10,000 samples [CPU s]"] = fmean(row.seconds_sampling for row in rows)
    return {**cells, "epochs": round(fmean(row.epochs for row in rows)), "parameters": rows[0].parameters}


def _draw(path: Path, rows: Sequence[PeerRow]) -> None:
    """Draw one panel for each task with one point for each method, score and seed, on a logarithmic axis."""
    tasks = list(grouped(rows, "data").values())
    methods = [group[0].method for group in grouped(rows, "method").values()]
    figure = matplotlib.figure.Figure(figsize=(4.0 * len(tasks), 4.0), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(tasks)))
    for axis, group in zip(axes, tasks, strict=True):
        _draw_panel(axis, group, methods)
        axis.set_title(group[0].data)
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=len(methods), fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_panel(axis: matplotlib.axes.Axes, rows: Sequence[PeerRow], methods: Sequence[str]) -> None:
    scores = [group[0].score for group in grouped(rows, "score").values()]
    for index, method in enumerate(methods):
        own = [row for row in rows if row.method == method]
        shift = 0.12 * (index - (len(methods) - 1) / 2)
        places = [scores.index(row.score) + shift for row in own]
        axis.scatter(places, [row.value for row in own], s=18, color=CYCLE[index % len(CYCLE)], label=method)
    axis.set_yscale("log")
    axis.set_xticks(range(len(scores)), scores, rotation=30, ha="right", fontsize="small")
