"""The paper's evaluation as JSON, CSV, Markdown and a figure."""

from __future__ import annotations

__all__ = ["write_paper_report"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import matplotlib.figure
import numpy as np

from matdesinne.benchmark.paper_table import PaperRow
from matdesinne.benchmark.table1 import PAPER
from matdesinne.files import atomic_path, write_json, write_table
from matdesinne.reporting.palette import BLUE, SKY, VERMILLION
from matdesinne.reporting.tables import markdown_table

_UNITS = dict.fromkeys(["target", "tolerance", "mae", "median", "mae_inside"], "eV") | {"seconds": "s"}


def write_paper_report(folder: Path, name: str, rows: Sequence[PaperRow], facts: Mapping[str, object]) -> str:
    """Write ``NAME.json``, ``NAME.csv``, ``NAME.md`` and ``NAME.png``.

    Args:
        folder: where to.
        name: of the suite.
        rows: the table.
        facts: what else a reader of the numbers needs, as plain containers.

    Returns:
        The tables as Markdown.
    """
    write_json(folder / f"{name}.json", {"unit": "eV", **facts, "rows": [asdict(row) for row in rows]})
    names = [field.name for field in fields(PaperRow)]
    columns = {column: (_UNITS.get(column, ""), [getattr(row, column) for row in rows]) for column in names}
    write_table(folder / f"{name}.csv", columns)
    _draw(folder / f"{name}.png", [row for row in rows if row.steps is None])
    text = _markdown(rows)
    with atomic_path(folder / f"{name}.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def _markdown(rows: Sequence[PaperRow]) -> str:
    raw = [_raw_cells(row) for row in rows if row.steps is None]
    localized = [_localized_cells(row) for row in rows if row.steps is not None]
    text = (
        "Mean absolute error (MAE) |prediction - target| by the forward INN, as in the paper (Fung et al. 2021, Table 1).\n\n"
        f"Raw samples:\n\n{_table(raw)}"
    )
    if localized:
        text += (
            "\nSamples within the tolerance of the target and with the electric field within its bounds, localized by the "
            f"published gradient descent; none is dropped after it:\n\n{_table(localized)}"
        )
    return text


def _table(cells: Sequence[Mapping[str, object]]) -> str:
    return markdown_table(list(cells[0]), [list(row.values()) for row in cells]) if cells else "No rows.\n"


def _raw_cells(row: PaperRow) -> dict[str, object]:
    return {
        "method": row.method,
        "target [eV]": f"{row.target:g}",
        "seed": row.seed,
        "MAE in the paper [eV]": _number(_published(row.method, row.target)),
        "MAE [eV]": _number(row.mae),
        "median [eV]": _number(row.median),
        "inside the box [%]": _percent(row.inside_bounds),
        "MAE inside the box [eV]": _number(row.mae_inside),
        "samples": row.samples,
    }


def _localized_cells(row: PaperRow) -> dict[str, object]:
    return {
        "method": f"MatDesINNe-{row.method}",
        "target [eV]": f"{row.target:g}",
        "seed": row.seed,
        "tolerance [eV]": f"{row.tolerance:g}",
        "steps": row.steps,
        "MAE in the paper [eV]": _number(_published(f"MatDesINNe-{row.method}", row.target)),
        "MAE [eV]": _number(row.mae),
        "median [eV]": _number(row.median),
        "inside the box [%]": _percent(row.inside_bounds),
        "samples": row.samples,
        "kept": row.kept,
        "seconds": row.seconds,
    }


def _published(method: str, target: float) -> float | None:
    """The paper's number; a model that was trained longer stands beside the same one."""
    return PAPER.get(method.partition(" (paper/")[0], {}).get(target)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f}"


def _draw(path: Path, rows: Sequence[PaperRow]) -> None:
    """Draw one panel for each target, with bars for each method and a line for the paper, on a logarithmic axis."""
    targets = sorted({row.target for row in rows})
    figure = matplotlib.figure.Figure(figsize=(3.6 * len(targets), 4.0), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(targets), sharey=True))
    for axis, target in zip(axes, targets, strict=True):
        chosen = [row for row in rows if row.target == target]
        place = np.arange(len(chosen))
        for shift, color, label, values in (
            (-0.2, BLUE, "all samples", [row.mae for row in chosen]),
            (0.2, SKY, "samples inside the box", [row.mae_inside for row in chosen]),
        ):
            axis.bar(place + shift, [value or np.nan for value in values], 0.4, color=color, label=label)
        paper = [_published(row.method, target) or np.nan for row in chosen]
        axis.scatter(place, paper, marker="_", s=300, color=VERMILLION, label="paper", zorder=3)
        axis.set_xticks(place, [row.method for row in chosen], rotation=60, ha="right", fontsize="small")
        axis.set(yscale="log", title=f"target {target:g} eV")
    axes[0].set_ylabel("mean |prediction - target| [eV]")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
