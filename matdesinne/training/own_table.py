"""The steps of design.py: the declaration of a table, settings that fit its size, a training that is done once."""

from __future__ import annotations

__all__ = [
    "declare",
    "folder_of_target",
    "is_asked",
    "nearest_rows",
    "property_names",
    "ranges",
    "read_target",
    "stop_when_on_target",
    "synthetic_words",
    "tolerances",
    "train_once",
    "training_words",
    "with_declaration",
]

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, EarlyStopping

from matdesinne.candidates import Candidates
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.declaration import guess_declaration
from matdesinne.data.table import DesignTable
from matdesinne.errors import ConfigError
from matdesinne.files import atomic_path, read_json, write_json
from matdesinne.models.base import InverseModel
from matdesinne.reporting.accuracy import Accuracy
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.training.build import build_module, check_device
from matdesinne.training.loggers import make_loggers
from matdesinne.training.progress import TimeEstimate
from matdesinne.training.runs import add_synthetic_rows, describe_training, save_design, train_model

_LOGGER = logging.getLogger(__name__)

_UNIFORM, _CHAINS = 20_000, 1_000
"""Designs that the surrogate labels, and Metropolis chains, for each parameter."""
_MARK = "training.json"


def property_names(config: DictConfig) -> list[str]:
    """The columns of the properties: ``property=``, or the names of the target.

    Raises:
        ConfigError: if neither names one.
    """
    chosen, target = config.property, config.target
    names = list(target) if chosen is None and isinstance(target, Mapping) else chosen
    if names is None:
        raise ConfigError("Expected the column of a property, got none: add property=COLUMN.")
    return [str(name) for name in ([names] if isinstance(names, str | int | float) else names)]


def read_target(config: DictConfig) -> object:
    """The target as `Target.parse` takes it: one entry, one for each property in order, or entries by name.

    Raises:
        ConfigError: if it names other properties.
    """
    names, target = property_names(config), config.target
    plain = OmegaConf.to_container(target) if OmegaConf.is_config(target) else target
    if isinstance(plain, dict) and not set(plain) <= set(names):
        raise ConfigError(f"Expected a target for some of {names}, got one for {list(plain)}: correct target=.")
    return plain


def is_asked(name: str, target: object) -> bool:
    """Whether a target asks for a property; one that has no names asks for all."""
    return not isinstance(target, Mapping) or name in target


def declare(config: DictConfig, folder: Path) -> Path:
    """Guess the declaration of the table and write it into the folder, or keep the one that is there.

    Raises:
        ConfigError: if the folder holds the declaration of another table or of other properties.
    """
    path, names = folder / "data" / "table.yaml", property_names(config)
    if not path.is_file():
        guessed = guess_declaration(str(config.table), names)
        guessed.write(path)
        for line in guessed.sentences():
            _LOGGER.info(line)
        _LOGGER.info(f"Wrote this declaration to {path}: where it is wrong, edit it and give the command again")
        return path
    kept = OmegaConf.load(path)
    known = [str(prop.name) for prop in kept.properties]
    headers = {name: str(kept.source.headers.get(name, name)) for name in known}
    same = len(known) == len(names) and all(name in (own, headers[own]) for name, own in zip(names, known, strict=True))
    if str(kept.source.path) != str(config.table) or not same:
        raise ConfigError(
            f"Expected the table {kept.source.path} and the properties {known} of {path}, got {config.table} and {names}: give "
            "another folder=."
        )
    _LOGGER.info(f"Using the declaration {path}")
    return path


def with_declaration(settings: DictConfig, declaration: Path, folder: Path) -> DictConfig:
    """Settings of train.py with a declared table, everything that is written in one folder; kept there as ``config.yaml``."""
    declared = OmegaConf.load(declaration)
    assert isinstance(declared, DictConfig)
    declared.pop("defaults", None)
    changes = {
        "data": declared,
        "folder": str(folder),
        "surrogates_folder": str(folder / "surrogates"),
        "trainer": {"enable_progress_bar": sys.stdout.isatty()},
    }
    OmegaConf.set_struct(settings.data.source.headers, False)  # its keys are the table's
    merged = OmegaConf.merge(settings, changes)
    assert isinstance(merged, DictConfig)
    with atomic_path(folder / "config.yaml") as temporary:
        OmegaConf.save(merged, temporary, resolve=True)
    return merged


def training_words(declaration: Path, own: str | None) -> list[str]:
    """Words of train.py for a small table; the user's own words win."""
    dimension = len(OmegaConf.load(declaration).space.parameters)
    return ["data=csv", "surrogate=chosen/gp_or_mlp", "logger=csv", *synthetic_words(dimension), *shlex.split(own or "")]


def synthetic_words(dimension: int) -> list[str]:
    """How many synthetic designs a generative model of so many parameters trains on."""
    return [f"data.synthetic.uniform={_UNIFORM * dimension}", f"data.synthetic.chains={_CHAINS * dimension}"]


def stop_when_on_target(accuracy: Sequence[Accuracy], share: float) -> list[Callback]:
    """Callbacks that estimate the time, and end a training when samples are nearer to targets than a share of the error."""
    if len(accuracy) != 1:  # each property has a metric of its own
        return [TimeEstimate()]
    limit = share * accuracy[0].mae
    return [TimeEstimate(), EarlyStopping("val/target_mae", patience=1000, stopping_threshold=limit, check_finite=False)]


def tolerances(config: DictConfig, accuracy: Sequence[Accuracy], space: DesignSpace) -> tuple[list[float], list[float]]:
    """Distances to the target at which samples, and localized candidates, are dropped; for each property in its unit.

    Where every parameter is discrete nothing can move a design onto the target: designs within the test error are kept, too.

    Raises:
        ConfigError: if there are no test rows to know the error of the surrogate from.
    """
    if not accuracy:
        raise ConfigError("Expected test rows to tell the error of the surrogate from, got none: give more rows, or data.test.")
    least = 0.0 if space.constraints.free().any() else 1.0
    share = max(config.accepted_error, least)
    return [config.tolerance * entry.std for entry in accuracy], [share * entry.mae for entry in accuracy]


def _is_trained(folder: Path, settings: DictConfig, data: DesignDataModule) -> bool:
    """Whether a folder holds what these settings and rows gave."""
    return read_json(folder / _MARK) == _described(settings, data)


def train_once(
    settings: DictConfig,
    data: DesignDataModule,
    surrogate: Surrogate,
    accuracy: Sequence[Accuracy],
    enough: float,
    folder: Path,
) -> None:
    """Train the generative model and write it with the surrogate, unless the folder holds what these settings and rows gave.

    See `stop_when_on_target` for `enough`.
    """
    if _is_trained(folder, settings, data):
        return
    model = build_module(settings.model, data)
    rows = add_synthetic_rows(data, surrogate, check_device(settings.trainer))
    callbacks, loggers = stop_when_on_target(accuracy, enough), make_loggers(settings.logger)
    network = train_model(settings, model, rows, surrogate, folder, loggers, callbacks=callbacks)
    save_design(folder, network, surrogate)
    _mark_trained(folder, settings, data)


def _mark_trained(folder: Path, settings: DictConfig, data: DesignDataModule) -> None:
    """Say by a file that the training of a folder is complete."""
    write_json(folder / _MARK, _described(settings, data))


def ranges(accuracy: Sequence[Accuracy], model: InverseModel) -> str:
    """Say within which range the table, and the surrogate over the whole box, has each property."""
    lines = []
    for entry, prop, (low, high) in zip(accuracy, model.properties, model.target_range.T.tolist(), strict=True):
        table = f"{entry.lowest:.4g} to {entry.highest:.4g}{prop.suffix} in the table"
        lines.append(f"{entry.name}: {table}, {low:.4g} to {high:.4g}{prop.suffix} by the surrogate over the whole box")
    return "\n".join(lines)


def nearest_rows(measured: DesignTable, candidates: Candidates, count: int = 3) -> str:
    """Say which measured rows are nearest to the target."""
    distance = (candidates.target.residual(measured.y).abs() / measured.y.std(dim=0)).amax(dim=1)
    lines = ["Measured rows nearest to the target:"]
    nearest = distance.argsort()[:count]
    table = candidates.space.to_columns(measured.x[nearest])
    for place, row in enumerate(nearest.tolist()):
        values = [f"{prop.name} {y:.4g}{prop.suffix}" for prop, y in zip(candidates.properties, measured.y[row], strict=True)]
        entries = [(name, column[place]) for name, (_, column) in table.items()]
        design = [f"{name} {entry}" if isinstance(entry, str) else f"{name} {entry:.4g}" for name, entry in entries]
        lines.append(f"  row {int(measured.ids[row])}: {', '.join(values)} at {', '.join(design)}")
    return "\n".join(lines)


def folder_of_target(folder: Path, candidates: Candidates) -> Path:
    """The folder of candidates, such as ``designs/80_to_inf``; where their target leaves a property open, with names."""
    target = candidates.target
    words = []
    for prop, low, high, asked in zip(candidates.properties, target.lower, target.upper, target.asked, strict=True):
        name = "" if all(target.asked) else f"{prop.name}_"
        words += [f"{name}{low:g}" if low == high else f"{name}{low:g}_to_{high:g}"] if asked else []
    return folder / "designs" / "_and_".join(words)


def _described(settings: DictConfig, data: DesignDataModule) -> dict[str, object]:
    parts = {"surrogate": settings.surrogate, "model": settings.model, "synthetic": settings.data.synthetic}
    plain = {name: OmegaConf.to_container(part, resolve=True) for name, part in parts.items()}
    return describe_training(settings, data, OmegaConf.create(plain), settings.seed)
