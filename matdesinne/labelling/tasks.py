"""What label.py can do: label a table of designs, validate candidates."""

from __future__ import annotations

__all__ = ["TASKS"]

from collections.abc import Callable
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from matdesinne.candidates import read_candidates
from matdesinne.errors import ConfigError
from matdesinne.labelling.points import read_points
from matdesinne.labelling.report import write_validation
from matdesinne.labelling.run import label_points
from matdesinne.labelling.validation import validate

Task = Callable[[DictConfig, Path], str]


def label(config: DictConfig, folder: Path) -> str:
    """Label the points."""
    oracle = instantiate(config.oracle, _convert_="all")
    if config.points is None:
        raise ConfigError("Expected designs to label, got none: add points=FILE.csv, points=FILE.parquet or points=sobol.")
    points = (
        instantiate(config.sobol).draw(oracle.space) if config.points == "sobol" else read_points(config.points, oracle.space)
    )
    return label_points(oracle, points, instantiate(config.executor), folder, config.retry).report()


def validation(config: DictConfig, folder: Path) -> str:
    """Label some of the candidates for each target, and compare."""
    if config.candidates is None:
        raise ConfigError("Expected candidates to validate, got none: add candidates=FOLDER of generate.py, or a list of such.")
    places = [config.candidates] if isinstance(config.candidates, str) else list(config.candidates)
    tables = read_candidates(places)
    oracle = instantiate(config.oracle, _convert_="all")
    generator = torch.Generator().manual_seed(config.seed)
    found = validate(tables, config.per_target, oracle, instantiate(config.executor), folder, generator)
    return write_validation(found, folder, oracle.prototype, config.outlier, config.seed)


TASKS: dict[str, Task] = {"label": label, "validate": validation}
"""By the name that ``task=`` takes."""
