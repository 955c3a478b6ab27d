"""The labelled rows that a run was trained on, to be shown beside what it generates."""

from __future__ import annotations

__all__ = ["data_settings", "labelled_rows"]

import importlib
from collections.abc import Iterator, Sequence

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

import matdesinne
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.table import DesignTable
from matdesinne.errors import CheckpointError, ConfigError
from matdesinne.network import run_folder
from matdesinne.space import DesignSpace
from matdesinne.targets import Property

_MOST = 20_000
"""Rows beyond which pictures do not change."""


def data_settings(run: str) -> DictConfig | None:
    """The settings of the data set in the ``config.yaml`` that train.py keeps in a run; ``None`` where there is none.

    Args:
        run: the folder, or ``"pretrained"``.

    Raises:
        CheckpointError: if they name code outside this package, which a file of weights must not choose.
    """
    path = run_folder(run) / "config.yaml"
    settings = OmegaConf.select(OmegaConf.load(path), "data") if path.is_file() else None
    if not isinstance(settings, DictConfig):
        return None
    for name in _targets(OmegaConf.to_container(settings)):
        if not _is_ours(name):
            raise CheckpointError(f"Expected data of classes of matdesinne in {path}, got {name!r}: give data=... yourself.")
    return settings


def labelled_rows(settings: DictConfig, space: DesignSpace, properties: Sequence[Property]) -> DesignTable:
    """The rows of a data set that have a label, without duplicates, in the order of their source.

    Of analytic problems, which have as many as one likes, the first 20,000.

    Args:
        settings: of the data set.
        space: whose parameters the rows must have.
        properties: the columns to read as labels.

    Raises:
        ConfigError: if the data set is of other parameters or properties.
    """
    data: DesignDataModule = instantiate(settings, _convert_="all")
    known = [prop.name for prop in data.properties]
    if data.space.names != space.names or len(known) != len(properties):
        raise ConfigError(
            f"Expected rows with {[*space.names, *(prop.name for prop in properties)]}, got {[*data.space.names, *known]}: "
            "give the data=... of the run, or the run=... of the candidates."
        )
    # candidates may end on a better version of the property than the one that was trained on
    data.properties = tuple(properties)
    table = data.with_all_rows().split.train
    return table.take(table.y.isfinite().all(dim=1).nonzero()[:_MOST, 0])


def _targets(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _is_ours(name: str) -> bool:
    """Whether a name is that of a class which a module of this package defines, not of something that it imports."""
    module, _, kind = name.rpartition(".")
    if module.split(".")[0] != matdesinne.__name__:
        return False
    try:
        found = getattr(importlib.import_module(module), kind, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__ == module
