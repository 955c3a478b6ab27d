"""Results of suite=speed as JSON, Markdown and a figure."""

from __future__ import annotations

__all__ = ["write_speed"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib.figure

from matdesinne.benchmark.report import grouped, records_table
from matdesinne.benchmark.speed import Floor, PaperTime, SpeedRow, exponent
from matdesinne.benchmark.training_speed import TrainingRow
from matdesinne.files import write_json, write_text
from matdesinne.reporting.drawing import save_figure
from matdesinne.reporting.palette import CYCLE
from matdesinne.reporting.tables import markdown_table

_SERIES = ("model", "localizer", "device")
_LARGE = 10_000  # the exponent is that of sizes from here on; constant costs dominate below


def write_speed(
    folder: Path,
    rows: Sequence[SpeedRow],
    papers: Sequence[PaperTime],
    floors: Sequence[Floor],
    training: Sequence[TrainingRow],
    facts: Mapping[str, object],
) -> str:
    """Write ``speed.json``, ``speed.md``, ``speed.png`` and ``speed.pdf``; returns the text of the second.

    `facts` are what else a reader of the numbers needs, with the keys ``target`` and ``unit``.
    """
    content = {
        "units": {"times and floor": "s", "rate": "1/s", "error": facts.get("unit")},
        **facts,
        "floors": [asdict(floor) for floor in floors],
        "rows": [{**asdict(row), "total": row.total} for row in rows],
        "paper": [asdict(paper) for paper in papers],
        "growth": _growth(rows),
        "training": [asdict(row) for row in training],
    }
    write_json(folder / "speed.json", content)
    text = _markdown(rows, papers, floors, facts)
    if training:
        text += "\nTraining steps on the CPU, beside the same network written straightforwardly:\n\n"
        text += records_table([_training_cells(row) for row in training])
    write_text(folder / "speed.md", text)
    _draw(folder, rows, papers)
    return text


def _growth(rows: Sequence[SpeedRow]) -> list[dict[str, object]]:
    """The exponent e of time ~ size^e for every model, localizer and device with at least two large sizes."""
    growth: list[dict[str, object]] = []
    for (model, localizer, device), group in grouped(rows, *_SERIES).items():
        large = [row for row in group if row.size >= _LARGE]
        slope = exponent([row.size for row in large], [row.total for row in large])
        if slope is not None:
            growth.append({"model": model, "localizer": localizer, "device": device, "exponent": slope})
    return growth


def _markdown(
    rows: Sequence[SpeedRow], papers: Sequence[PaperTime], floors: Sequence[Floor], facts: Mapping[str, object]
) -> str:
    rates = "; ".join(f"{floor.device} ({floor.threads} threads): {floor.rate / 1e9:.0f} Gflop/s" for floor in floors)
    by_size = {(paper.model, paper.device, paper.size): paper for paper in papers}
    lines = [_cells(row, by_size.get((row.model, row.device, row.size)), facts.get("unit")) for row in rows]
    text = (
        f"Wall times for the target {facts.get('target')} {facts.get('unit')}: medians of warm runs. Floor: operations in "
        f"matrix products over the rate of a large float32 product measured in this run: {rates}.\n\n{records_table(lines)}"
    )
    if papers:
        header = ["model", "device", "candidates", "localized", "steps", "timed steps", "time [s]"]
        cells = [[p.model, p.device, p.size, p.rows, p.steps, p.timed_steps, p.seconds] for p in papers]
        text += f"\nThe paper's localization, in proportion to the timed steps:\n\n{markdown_table(header, cells)}"
    if growth := _growth(rows):
        text += f"\nExponent of the total time over the candidates, from {_LARGE:,} on:\n\n{records_table(growth)}"
    return text


def _cells(row: SpeedRow, paper: PaperTime | None, unit: object) -> dict[str, object]:
    return {
        "model": row.model,
        "localizer": row.localizer,
        "device": row.device,
        "candidates": f"{row.size:,}",
        "runs": row.repeats,
        "sampling [s]": row.sample,
        "selection [s]": row.select,
        "localization [s]": row.localize,
        "total [s]": row.total,
        "time per candidate [us]": 1e6 * row.total / row.size,
        "kept": f"{row.kept:,}",
        f"mean error [{unit}]": row.error,
        "total / floor": row.total / row.floor,
        "paper / total": (row.sample + row.select + paper.seconds) / row.total if paper else None,
    }


def _training_cells(row: TrainingRow) -> dict[str, object]:
    return {
        "model": row.model,
        "rows": f"{row.batch:,}",
        "time [ms]": f"{1e3 * row.step:.1f}",
        "straightforward [ms]": f"{1e3 * row.reference:.1f}",
        "ratio": f"{row.reference / row.step:.1f}",
    }


def _draw(folder: Path, rows: Sequence[SpeedRow], papers: Sequence[PaperTime]) -> None:
    """Draw total times against size on logarithmic axes, the floor as dotted lines, the paper's algorithm as crosses."""
    figure = matplotlib.figure.Figure(figsize=(6.4, 4.8), layout="constrained")
    axis = figure.subplots()
    for place, ((model, localizer, device), group) in enumerate(grouped(rows, *_SERIES).items()):
        color, sizes = CYCLE[place % len(CYCLE)], [row.size for row in group]
        axis.plot(sizes, [row.total for row in group], "o-", color=color, label=f"{model}, {localizer}, {device}")
        axis.plot(sizes, [row.floor for row in group], ":", color=color)
    if papers:
        label = "paper's localization"
        axis.plot([paper.size for paper in papers], [paper.seconds for paper in papers], "x", color="black", label=label)
    axis.set(xscale="log", yscale="log", xlabel="candidates", ylabel="wall time [s]")
    axis.set_title("sampling + selection + localization")
    axis.legend(fontsize="small")
    save_figure(figure, folder, "speed")
