"""The tasks of label.py: label a table of designs, validate candidates, active learning."""

from __future__ import annotations

__all__ = ["TASKS"]

from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from matdesinne.candidates import read_candidates
from matdesinne.errors import ConfigError
from matdesinne.labelling.active import ActiveLearning
from matdesinne.labelling.active_report import write_rounds
from matdesinne.labelling.points import read_points
from matdesinne.labelling.run import label_points
from matdesinne.labelling.validation import log_validation, read_validation, validate, write_validation
from matdesinne.labelling.validation_page import write_validations
from matdesinne.models.base import InverseModel
from matdesinne.network import load_network, run_folder
from matdesinne.training.loggers import make_loggers

Task = Callable[[DictConfig, Path], str]
"""Takes the configuration and the folder of the files; returns the text to print."""


def label_table(config: DictConfig, folder: Path) -> str:
    """Label the designs of a table or of a Sobol sequence."""
    oracle = instantiate(config.oracle, _convert_="all")
    if config.points is None:
        raise ConfigError("Expected designs to label, got none: add points=FILE.csv, points=FILE.parquet or points=sobol.")
    points = (
        instantiate(config.sobol).draw(oracle.space) if config.points == "sobol" else read_points(config.points, oracle.space)
    )
    return label_points(oracle, points, instantiate(config.executor), folder, config.retry).report()


def validate_candidates(config: DictConfig, folder: Path) -> str:
    """Label some of the candidates for each target, and compare the labels with the targets.

    Where the targets ask for several properties, each has its files in a folder of its name. Without candidates an earlier
    validation in the folder is compared and drawn again.
    """
    if config.candidates is None:
        if texts := _validated_before(config, folder):
            return "\n".join(texts)
        raise ConfigError(
            "Expected candidates to validate, got none: add candidates=FOLDER, a folder of generate.py or a list of such."
        )
    paths = [config.candidates] if isinstance(config.candidates, str) else list(config.candidates)
    tables = read_candidates(paths)
    oracle = instantiate(config.oracle, _convert_="all")
    generator = torch.Generator().manual_seed(config.seed)
    found = validate(tables, config.per_target, oracle, instantiate(config.executor), folder, generator)
    settings = OmegaConf.to_container(config, resolve=True)
    places = write_validations(found, tables, folder, oracle.prototype, config.outlier, config.seed, settings)
    for name, validation in found.items() if config.get("logger") is not None else ():
        log_validation(make_loggers(config.logger), validation, places[name], config.outlier, config.seed)
    return "\n".join((place / "validation.md").read_text(encoding="utf-8") for place in places.values())


def _validated_before(config: DictConfig, folder: Path) -> list[str]:
    """Compare and draw the validations that a folder and those in it have again; returns the text of each."""
    places = sorted(path.parent for pattern in ("", "*/") for path in folder.glob(f"{pattern}validation.parquet"))
    if not places:
        return []
    oracle = instantiate(config.oracle, _convert_="all")
    read = [(place, read_validation(place / "validation.parquet", oracle.space)) for place in places]
    return [write_validation(found, place, oracle.prototype, config.outlier, config.seed) for place, found in read]


def learn_actively(config: DictConfig, folder: Path) -> str:
    """Label in rounds the designs whose prediction is most uncertain, and train the surrogate again."""
    settings = config.active
    model = load_network(InverseModel, run_folder(settings.run), "model")
    try:
        training = compose("train", list(settings.training))
    except HydraException as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"Expected overrides of train.py in active.training, got {reason}: correct them.") from error
    learning = ActiveLearning(
        training=training,
        model=model,
        oracle=instantiate(config.oracle, _convert_="all"),
        executor=lambda: instantiate(config.executor),
        folder=folder,
        targets=[OmegaConf.to_object(target) if OmegaConf.is_config(target) else target for target in settings.targets],
        num_samples=settings.num_samples,
        per_round=settings.per_round,
        fresh=settings.fresh,
        seed=config.seed,
    )
    return write_rounds(learning.run(settings.rounds), learning, config.seed)


TASKS: dict[str, Task] = {"label": label_table, "validate": validate_candidates, "active": learn_actively}
"""The tasks by the value of ``task=``."""
