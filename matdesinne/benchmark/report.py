"""What the suites found as JSON, CSV, Markdown and a picture."""

from __future__ import annotations

__all__ = ["write_posterior", "write_report", "write_resimulation"]

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import fmean, stdev

import matplotlib.figure
import numpy as np

from matdesinne.benchmark.posterior import PosteriorRow
from matdesinne.benchmark.table1 import PAPER, Row
from matdesinne.files import atomic_path, write_json
from matdesinne.reporting.palette import BLUE, SKY, VERMILLION

_EVALUATOR, _LOCALIZING, _PAPER = BLUE, SKY, VERMILLION


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
    _draw(folder / "table1.png", data, unit, rows)
    return _written(folder / "table1.md", _markdown(data, unit, rows))


def write_posterior(folder: Path, data: str, rows: Sequence[PosteriorRow], coverage: Sequence[Mapping[str, object]]) -> str:
    """Write ``posterior.json`` and ``posterior.md``; the latter's text is returned.

    Args:
        folder: where to.
        data: name of the data set.
        rows: every method at every target.
        coverage: expected coverage of the density models by level.
    """
    plain = [asdict(row) for row in rows]
    write_json(folder / "posterior.json", {"data": data, "rows": plain, "expected_coverage": list(coverage)})
    text = f"Against the rejection posterior on `{data}`.\n\n{_table(plain)}"
    if coverage:
        text += f"\nExpected coverage of highest-density regions; right where it equals the level.\n\n{_table(coverage)}"
    return _written(folder / "posterior.md", text)


def write_resimulation(folder: Path, data: str, rows: Sequence[Mapping[str, object]]) -> str:
    """Write ``resimulation.json`` and ``resimulation.md``; the latter's text is returned."""
    write_json(folder / "resimulation.json", {"data": data, "methods": list(rows)})
    return _written(folder / "resimulation.md", f"Exact errors on `{data}`.\n\n{_table(rows)}")


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    def cell(value: object) -> str:
        return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)

    if not rows:
        return "No rows.\n"
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _written(path: Path, text: str) -> str:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def _markdown(data: str, unit: str, rows: Sequence[Row]) -> str:
    seeds = sorted({row.seed for row in rows})
    out = io.StringIO()
    spread = f"; mean and standard deviation over the seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    out.write(f"MAE in {unit} on `{data}`{spread}; paper: Fung et al. 2021, Table 1 (their data, their surrogate).\n\n")
    out.write(
        "| method | target | paper | MAE, localizing surrogate | MAE, evaluator | inside | kept / generated "
        "| diversity | coverage | seconds (sample + select + localize) |\n|---|---|---|---|---|---|---|---|---|---|\n"
    )
    for group in _by_method(rows):
        first = group[0]
        paper = PAPER.get(first.method, {}).get(first.target)
        inside = [row.inside_bounds for row in group if row.inside_bounds is not None]
        kept, generated = (round(fmean(getattr(row, name) for row in group)) for name in ("kept", "generated"))
        out.write(
            f"| {first.method} | {first.target:g} | {'' if paper is None else f'{paper:.3f}'} "
            f"| {_mean(group, 'mae_surrogate', '.2g')} | {_mean(group, 'mae_evaluator', '.3f')} "
            f"| {f'{100 * min(inside):.1f} %' if inside else ''} | {kept:,} / {generated:,} "
            f"| {_mean(group, 'diversity', '.2f')} | {_mean(group, 'coverage', '.2f')} "
            f"| {fmean(row.seconds for row in group):.3g} ({_parts(group)}) |\n"
        )
    return out.getvalue()


def _by_method(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of one method and target over the seeds, in the order in which they came."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.target), []).append(row)
    return list(groups.values())


def _mean(group: Sequence[Row], name: str, form: str) -> str:
    """Mean and, over several seeds, standard deviation; the number of seeds that have a value where some have none."""
    values = [value for row in group if (value := getattr(row, name)) is not None]
    if not values:
        return ""
    text = format(fmean(values), form)
    if len(values) > 1:
        text += f" ± {format(stdev(values), form)}"
    return text if len(values) == len(group) else f"{text} ({len(values)} of {len(group)})"


def _parts(group: Sequence[Row]) -> str:
    names = ("seconds_sampling", "seconds_selection", "seconds_localization")
    parts = [fmean(getattr(row, name) for row in group) for name in names]
    return " + ".join(f"{part:.2g}" for part in parts) if sum(parts) else "by probability"


def _draw(path: Path, data: str, unit: str, rows: Sequence[Row]) -> None:
    """One panel a target, one group of bars a method, on a logarithmic axis."""
    scored = [group for group in _by_method(rows) if any(row.mae_evaluator is not None for row in group)]
    targets = sorted({group[0].target for group in scored})
    if not targets:
        return  # nothing was predicted
    figure = matplotlib.figure.Figure(figsize=(4.2 * len(targets), 4.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(targets), sharey=True))
    for axis, target in zip(axes, targets, strict=True):
        shown = [group for group in scored if group[0].target == target]
        place = np.arange(len(shown))
        for shift, name, color in ((-0.2, "surrogate", _LOCALIZING), (0.2, "evaluator", _EVALUATOR)):
            values = [[getattr(row, f"mae_{name}") or 0.0 for row in group] for group in shown]
            # bars need a visible foot on a logarithmic axis
            heights = [max(fmean(each), 1e-7) for each in values]
            label = f"{'localizing' if name == 'surrogate' else name} surrogate"
            axis.bar(place + shift, heights, 0.4, color=color, label=label)
            seeds = [(i + shift, value) for i, each in enumerate(values) for value in each if len(each) > 1]
            if seeds:
                axis.scatter(*zip(*seeds, strict=True), s=6, color="black", zorder=3)
        paper = [(i, PAPER[m][target]) for i, m in enumerate(group[0].method for group in shown) if target in PAPER.get(m, {})]
        if paper:
            axis.scatter(*zip(*paper, strict=True), marker="_", s=200, color=_PAPER, label="paper", zorder=3)
        axis.set_xticks(place, [group[0].method for group in shown], rotation=60, ha="right", fontsize="small")
        axis.set(yscale="log", title=f"target {target:g} {unit}")
    axes[0].set_ylabel(f"mean absolute error [{unit}]")
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    figure.suptitle(f"Table 1 on {data}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
