"""Validation of candidates: labels by an oracle, compared with targets and predictions, and the files about them."""

from __future__ import annotations

__all__ = [
    "TargetErrors",
    "Validation",
    "log_validation",
    "read_validation",
    "stratified",
    "validate",
    "write_validation",
]

import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from pytorch_lightning.loggers import Logger
from scipy import stats
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError, DatasetError
from matdesinne.files import atomic_path, write_json, write_text
from matdesinne.labelling.points import Points
from matdesinne.labelling.run import LabelRun, label_points
from matdesinne.labelling.validation_figure import draw_validation
from matdesinne.oracles.base import Oracle
from matdesinne.reporting.intervals import interval_cells, mean_interval, share_interval
from matdesinne.reporting.tables import markdown_table
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.targets import Property, Target
from matdesinne.training.loggers import log_results

_AT_FLOOR = 0.01
"""Distance above the floor up to which a label counts as at the floor, as in the paper, in the unit of the property."""
_INTRODUCTION = (
    "Errors of labels against targets. The two columns behind a number are the ends of its 95 % interval (bootstrap, "
    "Wilson). Wrong side of the floor: outliers as the paper counts them, labels above 0.01 for a target at the floor, "
    "labels at or below the floor for the others.\n\n"
)


@dataclass(frozen=True)
class TargetErrors:
    """Errors of the candidates for one target, with 95 % intervals.

    Args:
        target: the target as text.
        labelled: number of candidates with a label.
        failed: number of candidates whose calculation failed; the other numbers leave them out.
        mae: mean distance of the labels to the target, in the unit of the property; a single label has no interval.
        rmse: root mean square of that distance.
        largest: the largest distance.
        outliers: share of candidates with a distance above the limit, with Wilson's interval.
        wrong_side: share of outliers as the paper counts them, with Wilson's interval: for a target at the property's floor
            labels more than 0.01 above it, for other targets labels at or below it; ``None`` for a property without a floor.
        prediction_mae: mean distance of the labels to the predictions.
        within_spread: share whose label is within one predicted standard deviation of the prediction; 0.68 if calibrated.
        within_two: the same for two standard deviations; 0.95 if calibrated.
        rank_correlation: Spearman's, between predicted spread and distance to the prediction; ``None`` if one is constant.
    """

    target: str
    labelled: int
    failed: int
    mae: float
    mae_interval: tuple[float, float] | None
    rmse: float
    largest: float
    outliers: float
    outliers_interval: tuple[float, float]
    wrong_side: float | None
    wrong_side_interval: tuple[float, float] | None
    prediction_mae: float
    within_spread: float
    within_two: float
    rank_correlation: float | None


@dataclass(frozen=True)
class Validation:
    """The candidates chosen for each target, and their labels in float64, NaN where the calculation failed."""

    chosen: Sequence[Candidates]
    labels: Sequence[Float[Tensor, " n"]]
    run: LabelRun

    def errors(self, outlier: float, seed: int) -> list[TargetErrors]:
        """Returns the errors for each target; a label farther from it than `outlier`, in its unit, is an outlier."""
        pairs = zip(self.chosen, self.labels, strict=True)
        return [_errors(candidates, labels, outlier, seed) for candidates, labels in pairs]


def stratified(spread: Float[Tensor, " n"], count: int, generator: torch.Generator) -> Int[Tensor, " m"]:
    """Chooses one row out of each of `count` equal parts of the rows, sorted by the predicted spread.

    One random number gives the place within every part (systematic sampling). Every row has the same chance, so means over the
    chosen rows are unbiased, and certain and uncertain predictions are chosen in proportion.

    References:
        Cochran, Sampling Techniques, 3rd ed., Wiley 1977, chapter 8.

    Returns:
        `count` row numbers, or all if there are fewer.
    """
    order = spread.argsort(stable=True)
    if len(order) <= count:
        return order
    places = (torch.arange(count) + torch.rand(1, generator=generator, dtype=torch.float64)) * len(order) / count
    return order[places.long()]


def validate(
    tables: Sequence[Candidates], per_target: int, oracle: Oracle, executor: Executor, folder: Path, generator: torch.Generator
) -> dict[str, Validation]:
    """Choose candidates of each table, one for each target, and label them as `label_points` does.

    Returns:
        By the name of each property that a target asks for: the candidates of those targets, and their labels.

    Raises:
        ConfigError: if the oracle does not compute one of these properties, or has other parameters.
    """
    properties = list(dict.fromkeys(prop for table in tables for prop in table.asked))
    for prop in properties:
        oracle.check_column(prop.name)
    if any(table.space.names != oracle.space.names for table in tables):
        raise ConfigError(
            f"Expected candidates of {list(oracle.space.names)}, got {list(tables[0].space.names)}: change material."
        )
    chosen = [table.take(stratified(table.only(table.asked[:1]).std[:, 0], per_target, generator)) for table in tables]
    x = torch.cat([table.designs for table in chosen]).double()
    run = label_points(oracle, Points(x, torch.arange(len(x))), executor, folder)
    parts = torch.arange(len(x)).split([len(table) for table in chosen])
    found = {}
    for prop in properties:
        own = [number for number, table in enumerate(tables) if prop in table.asked]
        labels = [run.values(prop.name)[parts[number]] for number in own]
        rows = [run.rows[row] for number in own for row in parts[number].tolist()]
        found[prop.name] = Validation([chosen[number].only([prop]) for number in own], labels, replace(run, rows=rows))
    return found


def _errors(candidates: Candidates, labels: Float[Tensor, " n"], outlier: float, seed: int) -> TargetErrors:
    known = ~labels.isnan()
    if not known.any():
        raise DatasetError("Expected labels to compare with, got failures only: read the reasons in labels.parquet.")
    prop, y = candidates.properties[0], labels[known].unsqueeze(1)
    error = candidates.target.residual(y).abs()[:, 0].numpy()
    miss = (y - candidates.mean[known].double()).abs()[:, 0].numpy()
    spread = candidates.std[known, 0].double().numpy()
    wrong = _wrong_side(candidates.target, prop, y)
    return TargetErrors(
        target=candidates.target.format(candidates.properties),
        labelled=len(error),
        failed=int((~known).sum()),
        mae=float(error.mean()),
        mae_interval=mean_interval(error, seed),
        rmse=float(np.sqrt(np.square(error).mean())),
        largest=float(error.max()),
        outliers=float((error > outlier).mean()),
        outliers_interval=share_interval(int((error > outlier).sum()), len(error)),
        wrong_side=None if wrong is None else wrong / len(error),
        wrong_side_interval=None if wrong is None else share_interval(wrong, len(error)),
        prediction_mae=float(miss.mean()),
        within_spread=float((miss <= spread).mean()),
        within_two=float((miss <= 2 * spread).mean()),
        rank_correlation=_rank_correlation(spread, miss),
    )


def _wrong_side(target: Target, prop: Property, y: Float[Tensor, "n 1"]) -> int | None:
    """Returns how many labels are on the wrong side of the property's floor, ``None`` if it has none."""
    if prop.floor is None:
        return None
    wrong = y <= prop.floor if target.values[0] > prop.floor else y > prop.floor + _AT_FLOOR
    return int(wrong.sum())


def _rank_correlation(spread: Float[np.ndarray, " n"], miss: Float[np.ndarray, " n"]) -> float | None:
    if len(spread) < 3 or np.ptp(spread) == 0 or np.ptp(miss) == 0:
        return None
    return float(stats.spearmanr(spread, miss).statistic)


def write_validation(validation: Validation, folder: Path, prototype: Prototype | None, outlier: float, seed: int) -> str:
    """Write ``validation.json``, ``.md``, ``.parquet``, ``.png`` and ``.pdf``; returns the text of ``validation.md``.

    For `outlier` and `seed` see `Validation.errors`. The picture shows structures if there is a prototype.
    """
    errors = validation.errors(outlier, seed)
    write_json(folder / "validation.json", {"outlier": outlier, "targets": [asdict(entry) for entry in errors]})
    _write_table(validation, folder / "validation.parquet")
    text = _markdown(errors, validation.chosen[0].properties[0].unit, outlier)
    write_text(folder / "validation.md", text)
    draw_validation(validation.chosen, validation.labels, prototype, folder)
    return text


def log_validation(loggers: Sequence[Logger], validation: Validation, folder: Path, outlier: float, seed: int) -> None:
    """Logs the errors for each target, as numbers and as a table, and the picture that `write_validation` wrote."""
    rows = [asdict(entry) for entry in validation.errors(outlier, seed)]
    shown = ("mae", "rmse", "largest", "outliers", "failed")
    metrics = {f"{row['target']}: {name}": row[name] for row in rows for name in shown}
    table = (list(rows[0]), [[str(cell) if isinstance(cell, tuple) else cell for cell in row.values()] for row in rows])
    images = {"validation": folder / "validation.png"}
    log_results(loggers, metrics=metrics, images=images, tables={"validation": table})


def _write_table(validation: Validation, path: Path) -> None:
    """Writes the candidates as generate.py does, with the oracle's property beside the prediction."""
    import pyarrow
    import pyarrow.parquet

    prop = validation.chosen[0].properties[0]
    metadata = {"property": json.dumps(asdict(prop))}
    table = pyarrow.concat_tables([entry.to_arrow().replace_schema_metadata(metadata) for entry in validation.chosen])
    labels = pyarrow.array(torch.cat(list(validation.labels)).tolist(), pyarrow.float64(), from_pandas=True)
    table = table.append_column(pyarrow.field("label", labels.type, metadata={"unit": prop.unit}), labels)
    for name in ("id", "versions"):
        words = pyarrow.array([row[name] for row in validation.run.rows], pyarrow.string())
        table = table.append_column(pyarrow.field(name, words.type, metadata={"unit": ""}), words)
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def read_validation(path: Path, space: DesignSpace) -> Validation:
    """Read the ``validation.parquet`` of `write_validation`, without the records of the calculations.

    Raises:
        DatasetError: if the file is missing, damaged, or of other parameters.
    """
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        prop = Property(**json.loads(table.schema.metadata[b"property"]))
        numbers = torch.tensor(
            [table[name].to_pylist() for name in (*space.names, "target_lower", "target_upper", prop.name, f"{prop.name}_std")],
            dtype=torch.float64,
        ).T
        labels = torch.tensor([np.nan if y is None else y for y in table["label"].to_pylist()], dtype=torch.float64)
        rows = [
            {"id": key, "versions": words}
            for key, words in zip(*(table[c].to_pylist() for c in ("id", "versions")), strict=True)
        ]
        stage = table["stage"][0].as_py()
    except Exception as error:  # the parser may raise anything
        raise DatasetError(
            f"Expected the validation.parquet of a validation at {path}, got something else ({error}): give its folder."
        ) from error
    width, chosen, parts = space.dimension, [], []
    edges = numbers[:, width : width + 2]
    for low, high in dict.fromkeys(map(tuple, edges.tolist())):
        own = ((edges[:, 0] == low) & (edges[:, 1] == high)).nonzero()[:, 0]
        x, _, mean, std = numbers[own].float().split([width, 2, 1, 1], dim=1)
        chosen.append(Candidates(space, [prop], x, Target((low,), (high,)), mean, std, stage))
        parts.append(labels[own])
    return Validation(chosen, parts, LabelRun(rows, 0, 0, 0.0, 0.0))


def _markdown(errors: Sequence[TargetErrors], unit: str, outlier: float) -> str:
    interval = ["from", "to"]
    header = ["target", "designs", "failed", f"MAE [{unit}]", *interval, f"RMSE [{unit}]", f"largest [{unit}]"]
    header += [
        f"error > {outlier:g} {unit} [%]",
        *interval,
        "wrong side of the floor [%]",
        *interval,
        f"prediction MAE [{unit}]",
    ]
    header += ["within one spread [%]", "within two spreads [%]", "rank correlation"]
    rows = []
    for entry in errors:
        distances = [*interval_cells(entry.mae, entry.mae_interval), entry.rmse, entry.largest]
        outliers = interval_cells(entry.outliers, entry.outliers_interval, 100)
        shares = [*outliers, *interval_cells(entry.wrong_side, entry.wrong_side_interval, 100)]
        spread = [100 * entry.within_spread, 100 * entry.within_two, entry.rank_correlation]
        rows.append([entry.target, entry.labelled, entry.failed, *distances, *shares, entry.prediction_mae, *spread])
    return _INTRODUCTION + markdown_table(header, rows)
