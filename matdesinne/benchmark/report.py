"""Results of the suites as JSON, CSV, Markdown and a figure, and in Weights & Biases."""

from __future__ import annotations

__all__ = ["grouped", "log_suite", "records_table", "write_posterior", "write_report", "write_resimulation", "write_simulated"]

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from operator import attrgetter
from pathlib import Path
from statistics import fmean, stdev
from typing import TypeVar

import matplotlib.axes
import matplotlib.figure
import numpy as np
from omegaconf import DictConfig

from matdesinne.benchmark.posterior import PosteriorRow
from matdesinne.benchmark.simulated import SimulatedRow
from matdesinne.benchmark.table1 import PAPER, Row
from matdesinne.files import atomic_path, read_json, write_json, write_table, write_text
from matdesinne.reporting.palette import BLUE, SKY, VERMILLION
from matdesinne.reporting.tables import markdown_table

T = TypeVar("T")

_NUMBERS = {
    "mae_surrogate": ("MAE by the localizing surrogate [{unit}]", ".2g"),
    "mae_evaluator": ("MAE by the evaluator [{unit}]", ".3f"),
    "diversity": ("diversity", ".2f"),
    "coverage": ("coverage", ".2f"),
}
"""Column and format of the numbers of a row that have a mean and, over several seeds, a standard deviation."""
_SECONDS = {
    "seconds_sampling": "sampling [s]",
    "seconds_selection": "selection [s]",
    "seconds_localization": "localization [s]",
    "seconds": "total time [s]",
}


def write_report(folder: Path, data: str, unit: str, rows: Sequence[Row], facts: Mapping[str, object]) -> str:
    """Write ``table1.json``, ``table1.csv``, ``table1.md`` and, if there is any score, ``table1.png``.

    Args:
        folder: of the files.
        data: name of the data set.
        unit: of the property.
        rows: the table.
        facts: what else a reader of the numbers needs, by the name of the seed: see `Prepared.facts`.

    Returns:
        The table as Markdown.
    """
    write_json(folder / "table1.json", {"data": data, "unit": unit, **facts, "rows": [asdict(row) for row in rows]})
    columns = {field.name: ("", [getattr(row, field.name) for row in rows]) for field in fields(Row)}
    write_table(folder / "table1.csv", columns)
    _draw(folder / "table1.png", data, unit, rows)
    text = _markdown(data, unit, rows)
    write_text(folder / "table1.md", text)
    return text


def write_posterior(folder: Path, data: str, rows: Sequence[PosteriorRow], coverage: Sequence[Mapping[str, object]]) -> str:
    """Write ``posterior.json`` and ``posterior.md``; returns the text of the latter.

    `rows` has every method at every target, `coverage` the expected coverage of the density models by level.
    """
    plain = [asdict(row) for row in rows]
    write_json(folder / "posterior.json", {"data": data, "rows": plain, "expected_coverage": list(coverage)})
    text = f"Samples against the rejection posterior on `{data}`.\n\n{records_table(plain)}"
    if coverage:
        text += "\nExpected coverage of the highest-density regions; it equals the level where the density is right.\n\n"
        text += records_table(coverage)
    write_text(folder / "posterior.md", text)
    return text


def write_simulated(folder: Path, data: str, rows: Sequence[SimulatedRow]) -> str:
    """Write ``posterior.json`` and ``posterior.md`` of a task with a simulator; returns the text of the latter."""
    plain = [asdict(row) for row in rows]
    write_json(folder / "posterior.json", {"data": data, "rows": plain})
    means = [
        {"method": method, "seed": seed, "observations": len(group), "c2st, mean": fmean(row.c2st for row in group)}
        for (method, seed), group in grouped(rows, "method", "seed").items()
    ]
    text = f"Samples against the exact posterior on `{data}`.\n\n{records_table(means)}\n{records_table(plain)}"
    write_text(folder / "posterior.md", text)
    return text


def write_resimulation(folder: Path, data: str, rows: Sequence[Mapping[str, object]]) -> str:
    """Write ``resimulation.json`` and ``resimulation.md``; returns the text of the latter."""
    write_json(folder / "resimulation.json", {"data": data, "rows": list(rows)})
    text = f"Errors by the exact forward function on `{data}`.\n\n{records_table(rows)}"
    write_text(folder / "resimulation.md", text)
    return text


def log_suite(config: DictConfig, folder: Path) -> None:
    """Log the rows of a suite as a table, and its figure, with the loggers of ``logger=``."""
    from matdesinne.training.loggers import closed_runs, log_results, make_loggers

    content = read_json(folder / f"{config.suite}.json")
    assert isinstance(content, dict)  # the suite has written it
    rows = content["rows"]
    tables = {config.suite: (list(rows[0]), [list(row.values()) for row in rows])} if rows else {}
    images = {f"{config.suite} figure": folder / f"{config.suite}.png"}
    with closed_runs():
        log_results(make_loggers(config.logger), images=images, tables=tables)


def records_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Returns rows of equal keys as Markdown."""
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows]) if rows else "No rows.\n"


def grouped(rows: Iterable[T], *names: str) -> dict[tuple, list[T]]:
    """Returns the rows with equal values of some attributes, by these values, in the order of their first rows."""
    groups: dict[tuple, list[T]] = {}
    for row in rows:
        groups.setdefault(attrgetter(*names)(row), []).append(row)
    return groups


def _markdown(data: str, unit: str, rows: Sequence[Row]) -> str:
    seeds = sorted({row.seed for row in rows})
    several = len(seeds) > 1
    table = [_cells(group, several, unit) for group in grouped(rows, "method", "target").values()]
    over = f"; means over the seeds {', '.join(map(str, seeds))}, std: standard deviation" if several else ""
    return (
        f"Mean absolute errors (MAE) on `{data}`{over}. Paper: Fung et al. 2021, Table 1 (affine cINN, other data, other "
        "surrogate). At a floor the error is the distance above it. The time of a DFT search is computed from the share of "
        "uniform designs, or of the data rows, near the target.\n\n"
        f"{records_table(table)}"
    )


def _cells(group: Sequence[Row], several: bool, unit: str) -> dict[str, object]:
    """The line of one method and target, by the name of the column."""
    first = group[0]
    cells: dict[str, object] = {"method": first.method, f"target [{unit}]": f"{first.target:g}"}
    if several:
        cells["seeds with a score"] = sum(row.mae_evaluator is not None for row in group)
    cells[f"MAE in the paper [{unit}]"] = _formatted([PAPER.get(first.method, {}).get(first.target)], ".3f")
    for name, (column, form) in _NUMBERS.items():
        values = [getattr(row, name) for row in group]
        cells[column.format(unit=unit)] = _formatted(values, form)
        if several:
            cells[f"std of {column.format(unit=unit)}"] = _formatted(values, form, deviation=True)
    off = [row.off_target for row in group]
    cells[f"error > 0.01 {unit} by the evaluator [%]"] = _formatted([None if o is None else 100 * o for o in off], ".1f")
    inside = [row.inside_bounds for row in group if row.inside_bounds is not None]
    cells["inside the bounds [%]"] = f"{100 * min(inside):.1f}" if inside else None
    for name in ("generated", "kept"):
        cells[name] = f"{round(fmean(getattr(row, name) for row in group)):,}"
    timed = any(row.seconds_sampling + row.seconds_selection + row.seconds_localization for row in group)
    for name, column in _SECONDS.items():
        cells[column] = fmean(getattr(row, name) for row in group) if timed or name == "seconds" else None
    return cells


def _formatted(values: Iterable[float | None], form: str, deviation: bool = False) -> str | None:
    """The mean, or the standard deviation, of the values that are not ``None``."""
    known = [value for value in values if value is not None]
    if len(known) <= deviation:
        return None
    return format(stdev(known) if deviation else fmean(known), form)


def _draw(path: Path, data: str, unit: str, rows: Sequence[Row]) -> None:
    """Draw one panel for each target with one pair of bars for each method, on a logarithmic axis."""
    groups = grouped(rows, "method", "target").values()
    scored = [group for group in groups if any(row.mae_evaluator is not None for row in group)]
    targets = sorted({group[0].target for group in scored})
    if not targets:
        return  # no design has a prediction
    figure = matplotlib.figure.Figure(figsize=(4.2 * len(targets), 4.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(targets), sharey=True))
    for axis, target in zip(axes, targets, strict=True):
        _draw_panel(axis, [group for group in scored if group[0].target == target])
        axis.set(yscale="log", title=f"target {target:g} {unit}")
    axes[0].set_ylabel(f"mean absolute error [{unit}]")
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    figure.suptitle(f"Table 1 on {data}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_panel(axis: matplotlib.axes.Axes, groups: Sequence[Sequence[Row]]) -> None:
    place = np.arange(len(groups))
    bars = ((-0.2, "mae_surrogate", SKY, "localizing surrogate"), (0.2, "mae_evaluator", BLUE, "evaluator"))
    for shift, name, color, label in bars:
        values = [[getattr(row, name) or 0.0 for row in group] for group in groups]
        # a bar on a logarithmic axis needs a positive height
        axis.bar(place + shift, [max(fmean(each), 1e-7) for each in values], 0.4, color=color, label=label)
        for i, each in enumerate(values):
            if len(each) > 1:  # one point for each seed
                axis.scatter([i + shift] * len(each), each, s=6, color="black", zorder=3)
    methods, target = [group[0].method for group in groups], groups[0][0].target
    published = {i: PAPER[method][target] for i, method in enumerate(methods) if target in PAPER.get(method, {})}
    if published:
        ticks, errors = list(published), list(published.values())
        axis.scatter(ticks, errors, marker="_", s=200, color=VERMILLION, label="paper", zorder=3)
    axis.set_xticks(place, methods, rotation=60, ha="right", fontsize="small")
