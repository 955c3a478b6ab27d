"""Errors of a surrogate on unseen rows against the number of labels, alone and with the rows of similar materials."""

from __future__ import annotations

__all__ = ["CurveRow", "learning_curves"]

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev

import matplotlib.figure
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from matdesinne.benchmark.parallel import Trainings
from matdesinne.benchmark.preparation import picklable, repetitions
from matdesinne.benchmark.report import grouped, records_table
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.errors import ConfigError
from matdesinne.files import atomic_path, write_json, write_text
from matdesinne.reporting.drawing import printed_name, printed_unit
from matdesinne.reporting.palette import BLUE, VERMILLION
from matdesinne.surrogates.base import Surrogate
from matdesinne.training.build import check_device, check_property
from matdesinne.training.runs import trained_surrogate

_COLUMNS = 3
"""Panels beside each other."""
_PARTS = 8
"""The default sizes begin at this part of the rows and double."""


@dataclass(frozen=True)
class CurveRow:
    """Errors of one property after one training; values below its floor, less its margin, are equal to each other."""

    property: str
    unit: str
    seed: int  # of the choice of training and test rows, and of the training
    labels: int  # rows that the training used, validation rows among them
    similar: int  # rows of similar materials that it could use besides
    test_rows: int  # rows with a label of the property that no training used
    mae: float  # mean absolute error in the unit of the property
    median_error: float  # median of the absolute errors
    largest_error: float

    @cached_property
    def helped(self) -> bool:
        """Whether it used rows of similar materials, whose number depends on the seed."""
        return self.similar > 0


def learning_curves(config: DictConfig, models: Mapping[str, DictConfig], folder: Path, data_name: str) -> str:
    """Train the surrogate on more and more rows, once for each seed, and test it on the same test rows.

    Every seed chooses the test rows anew. Surrogates are kept in the folder for them: a run that was ended goes on.
    """
    check_device(config.trainer)
    rows: list[CurveRow] = []
    text = ""
    for part, _ in repetitions(config, folder):
        data = instantiate(part.data, _convert_="all")
        check_property(part.property, data.properties)
        sizes = _sizes(part.learning_curves.labels, data)
        alone = copy.copy(data)
        alone.relatives = ()
        kinds = [alone, data] if data.relatives else [data]
        subsets = [_subset(kind, size, part.seed) for kind in kinds for size in sizes]
        workers = min(part.workers, len(subsets))
        with Trainings(workers) as trainings:
            tasks = [(trained_surrogate, (picklable(part, workers), subset)) for subset in subsets]
            trainings.finish(trainings.start(tasks), f"Training surrogates, seed {part.seed}")
        for subset in subsets:
            rows += _rows(trained_surrogate(part, subset), subset, part.seed)
        text = _write(folder, data_name, rows)
    return text


def _sizes(asked: Sequence[int] | None, data: DesignDataModule) -> list[int]:
    """The numbers of labels that were asked for; by default an eighth, a quarter, a half and all of the rows."""
    most = len(data.split.train) + len(data.split.validation)
    sizes = [most * 2**i // _PARTS for i in range(4)] if asked is None else list(asked)
    if not sizes or not all(isinstance(size, int) and 1 <= size <= most for size in sizes):
        raise ConfigError(
            f"Expected learning_curves.labels as numbers of rows from 1 to {most}, all but the test rows, got "
            f"{sizes}: correct them, or choose a smaller data.test."
        )
    return sorted(set(sizes))


def _subset(data: DesignDataModule, size: int, seed: int) -> DesignDataModule:
    """The data with the first rows of a random order for training and validation, in the proportion of the split."""
    split = data.split
    every = split.train.joined(split.validation)
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))
    validation = math.ceil(size * len(split.validation) / len(every))
    return data.with_rows(every.take(order[validation:size]), every.take(order[:validation]))


def _rows(surrogate: Surrogate, data: DesignDataModule, seed: int) -> list[CurveRow]:
    test, labels = data.split.test, len(data.split.train) + len(data.split.validation)
    similar = sum(len(table) for table in data.relative_rows())
    mean, _ = surrogate.predict_many(test.x)
    found = []
    for j, prop in enumerate(surrogate.properties):
        known = test.y[:, j].isfinite()
        if not known.any():
            continue
        error = (mean[known, j].clamp_min(prop.lowest) - test.y[known, j].clamp_min(prop.lowest)).abs()
        numbers = (error.mean().item(), error.median().item(), error.max().item())
        found.append(CurveRow(prop.name, prop.unit, seed, labels, similar, len(error), *numbers))
    return found


def _write(folder: Path, data: str, rows: Sequence[CurveRow]) -> str:
    """Write ``learning_curves.json``, ``.md`` and ``.png``; returns the text of the second."""
    write_json(folder / "learning_curves.json", {"data": data, "rows": [asdict(row) for row in rows]})
    text = f"Errors of the surrogate on test rows of `{data}` that no training used; std: standard deviation over the seeds.\n"
    for group in grouped(rows, "property").values():
        lines = [_line(several) for several in grouped(group, "helped", "labels").values()]
        text += f"\n## {printed_name(group[0].property)}\n\n{records_table(lines)}"
    write_text(folder / "learning_curves.md", text)
    _draw(folder / "learning_curves.png", data, rows)
    return text


def _line(rows: Sequence[CurveRow]) -> dict[str, object]:
    """Means over the seeds, by the name of the column."""
    unit = rows[0].unit
    deviation = {f"std of MAE [{unit}]": stdev(row.mae for row in rows)} if len(rows) > 1 else {}
    return {
        "labels": rows[0].labels,
        "rows of similar materials": round(fmean(row.similar for row in rows)),
        f"MAE [{unit}]": fmean(row.mae for row in rows),
        **deviation,
        f"median error [{unit}]": fmean(row.median_error for row in rows),
        f"largest error [{unit}]": max(row.largest_error for row in rows),
        "test rows": round(fmean(row.test_rows for row in rows)),
        "seeds": len(rows),
    }


def _draw(path: Path, data: str, rows: Sequence[CurveRow]) -> None:
    """Draw one panel for each property: a point for each seed, and lines through their means, on logarithmic axes."""
    panels = grouped(rows, "property")
    columns = min(len(panels), _COLUMNS)
    lines = math.ceil(len(panels) / columns)
    figure = matplotlib.figure.Figure(figsize=(3.4 * columns, 3.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, group in zip(axes, panels.values(), strict=False):
        for helped, color, label in ((False, BLUE, "alone"), (True, VERMILLION, "with similar materials")):
            own = [row for row in group if row.helped == helped]
            if own:
                parts = grouped(own, "labels").values()
                axis.plot([part[0].labels for part in parts], [fmean(row.mae for row in part) for part in parts], color=color)
                axis.scatter([row.labels for row in own], [row.mae for row in own], s=14, color=color, label=label)
        axis.set(xscale="log", yscale="log", xlabel="labels", title=printed_name(group[0].property))
        axis.set_ylabel(f"mean absolute error [{printed_unit(group[0].unit)}]")
        ticks = sorted({row.labels for row in group})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(data)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
