"""Table 1 as JSON, CSV, Markdown and a picture."""

from __future__ import annotations

__all__ = ["write_report"]

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import matplotlib.figure
import numpy as np

from matdesinne.benchmark.table1 import PAPER, Row
from matdesinne.files import atomic_path, write_json

_INDEPENDENT, _LOCALIZING, _PAPER = "#0072B2", "#56B4E9", "#D55E00"


def write_report(folder: Path, data: str, unit: str, rows: Sequence[Row], facts: Mapping[str, object]) -> str:
    """Write ``table1.json``, ``table1.csv``, ``table1.md`` and, where something was scored, ``table1.png``.

    Args:
        folder: where to.
        data: name of the data set.
        unit: unit of the property.
        rows: the table.
        facts: what else a reader of the numbers needs: seeds, threads, versions, errors of the surrogates on test rows.

    Returns:
        The table as Markdown.
    """
    write_json(folder / "table1.json", {"data": data, "unit": unit, **facts, "rows": [asdict(row) for row in rows]})
    with atomic_path(folder / "table1.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    text = _markdown(data, unit, rows)
    with atomic_path(folder / "table1.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    _draw(folder / "table1.png", data, unit, rows)
    return text


def _markdown(data: str, unit: str, rows: Sequence[Row]) -> str:
    out = io.StringIO()
    out.write(f"MAE in {unit} on `{data}`; paper: Fung et al. 2021, Table 1 (their data, their surrogate).\n\n")
    out.write(
        "| method | target | paper | MAE, localizing surrogate | MAE, independent surrogate | inside | kept / generated "
        "| diversity | coverage | seconds (sample + select + localize) |\n|---|---|---|---|---|---|---|---|---|---|\n"
    )
    for row in rows:
        paper = PAPER.get(row.method, {}).get(row.target)
        inside = "" if row.inside_bounds is None else f"{100 * row.inside_bounds:.1f} %"
        out.write(
            f"| {row.method} | {row.target:g} | {_number(paper, '.3f')} | {_number(row.mae_surrogate, '.2g')} "
            f"| {_number(row.mae_independent, '.3f')} | {inside} | {row.kept:,} / {row.generated:,} "
            f"| {_number(row.diversity, '.2f')} | {_number(row.coverage, '.2f')} | {row.seconds:.3g} ({_parts(row)}) |\n"
        )
    return out.getvalue()


def _parts(row: Row) -> str:
    parts = (row.seconds_sampling, row.seconds_selection, row.seconds_localization)
    return " + ".join(f"{part:.2g}" for part in parts) if sum(parts) else "by probability"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _draw(path: Path, data: str, unit: str, rows: Sequence[Row]) -> None:
    """One panel a target, one group of bars a method, on a logarithmic axis."""
    scored = [row for row in rows if row.mae_independent is not None]
    targets = sorted({row.target for row in scored})
    if not targets:
        return  # nothing was predicted
    figure = matplotlib.figure.Figure(figsize=(4.2 * len(targets), 4.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(targets), sharey=True))
    for axis, target in zip(axes, targets, strict=True):
        shown = [row for row in scored if row.target == target]
        place = np.arange(len(shown))
        # bars need a visible foot on a logarithmic axis
        axis.bar(
            place - 0.2,
            [max(row.mae_surrogate or 0, 1e-7) for row in shown],
            0.4,
            color=_LOCALIZING,
            label="localizing surrogate",
        )
        axis.bar(
            place + 0.2,
            [max(row.mae_independent or 0, 1e-7) for row in shown],
            0.4,
            color=_INDEPENDENT,
            label="independent surrogate",
        )
        paper = [(i, PAPER[row.method][target]) for i, row in enumerate(shown) if target in PAPER.get(row.method, {})]
        if paper:
            axis.scatter(*zip(*paper, strict=True), marker="_", s=200, color=_PAPER, label="paper", zorder=3)
        axis.set_xticks(place, [row.method for row in shown], rotation=60, ha="right", fontsize="small")
        axis.set(yscale="log", title=f"target {target:g} {unit}")
    axes[0].set_ylabel(f"mean absolute error [{unit}]")
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    figure.suptitle(f"Table 1 on {data}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
