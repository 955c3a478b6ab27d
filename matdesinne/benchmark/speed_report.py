"""What suite=speed found as JSON, Markdown and a picture."""

from __future__ import annotations

__all__ = ["write_speed"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib.figure

from matdesinne.benchmark.speed import Floor, PaperTime, SpeedRow, exponent
from matdesinne.benchmark.training_speed import TrainingRow
from matdesinne.files import atomic_path, write_json
from matdesinne.reporting.palette import CYCLE

_LARGE = 10_000
"""Sizes from here on give the exponent; below, what does not grow shows."""


def write_speed(
    folder: Path,
    rows: Sequence[SpeedRow],
    papers: Sequence[PaperTime],
    floors: Sequence[Floor],
    training: Sequence[TrainingRow],
    facts: Mapping[str, object],
) -> str:
    """Write ``speed.json``, ``speed.md``, ``speed.png`` and ``speed.pdf``; the text of the second is returned.

    Args:
        folder: where to.
        rows: times of every model, localizer, size and device.
        papers: times of the published localization.
        floors: rates of the devices.
        training: times of training steps.
        facts: what else a reader of the numbers needs.
    """
    growth = [{**key, "exponent": value} for key, value in _exponents(rows)]
    content = {
        "units": {"times and floor": "s", "rate": "1/s", "error": facts.get("unit")},
        **facts,
        "floors": [asdict(floor) for floor in floors],
        "rows": [{**asdict(row), "total": row.total} for row in rows],
        "paper": [asdict(paper) for paper in papers],
        "growth": growth,
        "training": [asdict(row) for row in training],
    }
    write_json(folder / "speed.json", content)
    text = _markdown(rows, papers, floors, facts) + _training_lines(training)
    with atomic_path(folder / "speed.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    _draw(folder, rows, papers)
    return text


def _series(rows: Sequence[SpeedRow]) -> dict[tuple[str, str, str], list[SpeedRow]]:
    series: dict[tuple[str, str, str], list[SpeedRow]] = {}
    for row in rows:
        series.setdefault((row.model, row.localizer, row.device), []).append(row)
    return series


def _exponents(rows: Sequence[SpeedRow]) -> list[tuple[dict[str, str], float]]:
    found = []
    for (model, localizer, device), group in _series(rows).items():
        large = [row for row in group if row.size >= _LARGE]
        slope = exponent([row.size for row in large], [row.total for row in large])
        if slope is not None:
            found.append(({"model": model, "localizer": localizer, "device": device}, slope))
    return found


def _markdown(
    rows: Sequence[SpeedRow], papers: Sequence[PaperTime], floors: Sequence[Floor], facts: Mapping[str, object]
) -> str:
    rates = "; ".join(f"{floor.device} ({floor.threads} threads): {floor.rate / 1e9:.0f} Gflop/s" for floor in floors)
    lines = [
        f"Wall time in seconds, target {facts.get('target')} {facts.get('unit')}; medians of warm runs. Floor: operations in",
        f"matrix products over the rate of a large float32 product measured in this run: {rates}.",
        "",
        "| model | localizer | device | candidates | runs | sample [s] | select [s] | localize [s] | total [s] | each [us] "
        f"| kept | mean error [{facts.get('unit')}] | total / floor | paper / total |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    known = {(paper.model, paper.device, paper.size): paper for paper in papers}
    for row in rows:
        paper = known.get((row.model, row.device, row.size))
        ratio = f"{(row.sample + row.select + paper.seconds) / row.total:.0f}" if paper else ""
        lines.append(
            f"| {row.model} | {row.localizer} | {row.device} | {row.size:,} | {row.repeats} | {row.sample:.3g} "
            f"| {row.select:.3g} | {row.localize:.3g} | {row.total:.3g} | {1e6 * row.total / row.size:.3g} "
            f"| {row.kept:,} | {row.error:.2g} | {row.total / row.floor:.2f} | {ratio} |"
        )
    lines.append("")
    for paper in papers:
        whole = "whole" if paper.timed_steps == paper.steps else f"in proportion to {paper.timed_steps} timed steps"
        lines.append(
            f"The paper's localization of {paper.rows:,} of {paper.size:,} candidates ({paper.model}, {paper.device}): "
            f"{paper.seconds:.0f} s for {paper.steps:,} steps, {whole}."
        )
    for key, slope in _exponents(rows):
        lines.append(f"{key['model']}, {key['localizer']}, {key['device']}: time grows as size^{slope:.2f} from {_LARGE:,} on.")
    return "\n".join(lines) + "\n"


def _training_lines(training: Sequence[TrainingRow]) -> str:
    return "".join(
        f"A training step of the {row.model}, {row.batch:,} rows, CPU: {1e3 * row.step:.1f} ms; written straightforwardly "
        f"{1e3 * row.reference:.1f} ms, {row.reference / row.step:.1f} times as long.\n"
        for row in training
    )


def _draw(folder: Path, rows: Sequence[SpeedRow], papers: Sequence[PaperTime]) -> None:
    """Total times against size on logarithmic axes; dotted: the floor; crosses: the paper's algorithm."""
    figure = matplotlib.figure.Figure(figsize=(6.4, 4.8), layout="constrained")
    axis = figure.subplots()
    for place, ((model, localizer, device), group) in enumerate(_series(rows).items()):
        color, sizes = CYCLE[place % len(CYCLE)], [row.size for row in group]
        axis.plot(sizes, [row.total for row in group], "o-", color=color, label=f"{model}, {localizer}, {device}")
        axis.plot(sizes, [row.floor for row in group], ":", color=color)
    if papers:
        label = "paper's localization"
        axis.plot([paper.size for paper in papers], [paper.seconds for paper in papers], "x", color="black", label=label)
    axis.set(xscale="log", yscale="log", xlabel="candidates", ylabel="wall time [s]", title="sample + select + localize")
    axis.legend(fontsize="small")
    for suffix in ("png", "pdf"):
        with atomic_path(folder / f"speed.{suffix}") as temporary:
            figure.savefig(temporary, dpi=120)
