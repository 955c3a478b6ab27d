"""The designs of an exploration: generated ones for some targets, and the labelled rows of the data set."""

from __future__ import annotations

__all__ = ["Exploration", "data_settings", "default_targets", "gather", "labelled_rows"]

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from matdesinne.candidates import Candidates, read_candidates
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.table import DesignTable
from matdesinne.errors import CheckpointError, ConfigError
from matdesinne.exploration.embedding import Embedding, embed
from matdesinne.network import run_folder
from matdesinne.pipeline import InverseDesign
from matdesinne.reporting.accuracy import read_accuracy
from matdesinne.selection import All, InsideSpace, Selection, Tolerance
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property
from matdesinne.trust import advice, is_trusted

_MOST = 20_000
"""Largest number of rows; more would not change the figures."""
_PAPER_TARGETS = [0.0, 0.5, 1.0]
"""Gaps in eV that are shown of the packaged weights."""
_TOLERANCE, _ACCEPTED = 0.5, 0.1
"""Distances to the target: of samples in standard deviations of the property, of candidates in the surrogate's test errors."""
_ACCEPTED_BY_DEFAULT = 0.01
"""In the unit of the property, of a run that does not know its test error, such as the packaged weights."""
_RENAMED = {
    "matdesinne.data.datamodule.DesignData": "matdesinne.data.datamodule.DesignDataModule",
    "matdesinne.data.labels.SurrogateLabels": "matdesinne.data.synthetic.SyntheticDesigns",
}
"""Former names of classes, which older runs have in their settings, where ``synthetic`` was called ``labels``."""


@dataclass(frozen=True)
class Exploration:
    """Designs and what is known about them; every section of the report is about these.

    Args:
        generated: candidates, one table for each target, the lowest target first.
        surrogate: predicts the properties of further designs, with gradients.
        labelled: rows of the data set; ``None`` if the run does not say what it was trained on.
        folder: of the figures and tables.
        seed: of all random numbers.
    """

    generated: tuple[Candidates, ...]
    surrogate: Surrogate
    labelled: DesignTable | None
    folder: Path
    seed: int

    @property
    def space(self) -> DesignSpace:
        """The design space of the surrogate."""
        return self.surrogate.space

    @property
    def properties(self) -> tuple[Property, ...]:
        """The properties of the candidates; those of the surrogate, or a more accurate version of them."""
        return tuple(self.generated[0].properties)

    @cached_property
    def embedding(self) -> Embedding | None:
        """Labelled and generated designs on a plane, or ``None`` if there are too few different designs."""
        return embed(self.surrogate.scale, self.labelled, self.generated, self.seed)


def gather(config: DictConfig, folder: Path) -> Exploration:
    """Generate designs for every target, or read candidates, and find the labelled rows.

    Raises:
        ConfigError: if candidates and run are of different materials.
    """
    selection, accepted = _limits(config)
    localization = instantiate(config.localization, _convert_="all")
    design = InverseDesign.load(config.run, selection, localization, accepted, config.refine_with)
    design = design.to(config.accelerator)
    if config.candidates is None:
        default = _PAPER_TARGETS if config.run == "pretrained" else default_targets(design)
        targets = default if config.targets is None else OmegaConf.to_container(config.targets)
        if not isinstance(targets, list) or not targets:
            raise ConfigError(f"Expected targets=[...] with at least one, got {targets!r}: e.g. targets=[0.0,1.0].")
        generator = torch.Generator().manual_seed(config.seed)
        tables = [design.run(target, config.num_samples, generator).candidates for target in targets]
        tables.sort(key=lambda table: table.target.rank)
    else:
        tables = read_candidates([config.candidates] if isinstance(config.candidates, str) else list(config.candidates))
    space = design.surrogate.space
    if tables[0].space.names != space.names:
        raise ConfigError(
            f"Expected candidates with the parameters {list(space.names)} of the run, got {list(tables[0].space.names)}: "
            "give the run=... that they come from."
        )
    own = design.surrogate.properties
    tables = [table.only(own) if set(own) <= set(table.properties) else table for table in tables]
    settings = config.get("data") or data_settings(config.run)
    labelled = None if settings is None else labelled_rows(settings, space, tables[0].properties)
    return Exploration(tuple(tables), design.surrogate.cpu(), labelled, folder, config.seed)


def _limits(config: DictConfig) -> tuple[Selection, list[float] | float]:
    """The selection, and the largest error of a candidate: as given, else relative to what the run knows of its surrogate."""
    accuracy = read_accuracy(run_folder(config.run))
    if config.get("selection") is not None:
        selection = instantiate(config.selection, _convert_="all")
    else:
        selection = All([InsideSpace(), Tolerance([_TOLERANCE * entry.std for entry in accuracy] or _TOLERANCE)])
    accepted = [_ACCEPTED * entry.mae for entry in accuracy] or _ACCEPTED_BY_DEFAULT
    return selection, accepted if config.accepted_error is None else config.accepted_error


def default_targets(design: InverseDesign) -> list[object]:
    """Three values of the first property within the range that the model has seen; further properties stay open.

    They are quarters of that range, the first at the floor where there is one.
    """
    lowest, highest = design.model.target_range.cpu()
    prop, low, high = design.model.properties[0], lowest[0].item(), highest[0].item()
    start, first = (low, 1) if prop.floor is None else (prop.floor, 0)
    values = [float(f"{start + (first + k) * (high - start) / 4:.2g}") for k in range(3)]
    return list(values) if len(design.model.properties) == 1 else [{prop.name: value} for value in values]


def data_settings(run: str) -> DictConfig | None:
    """Returns the settings of the data set in the ``config.yaml`` of a run, or ``None`` if there are none.

    Raises:
        CheckpointError: if they name code outside this package and those of `trusting`; a downloaded run must not choose it.
    """
    path = run_folder(run) / "config.yaml"
    settings = OmegaConf.select(OmegaConf.load(path), "data") if path.is_file() else None
    if not isinstance(settings, DictConfig):
        return None
    plain = OmegaConf.to_container(settings)
    assert isinstance(plain, dict)
    if "labels" in plain:
        plain["synthetic"] = plain.pop("labels")
    for node in _nodes_with_target(plain):
        name = node["_target_"] = _RENAMED.get(node["_target_"], node["_target_"])
        if not _is_trusted_class(str(name)):
            raise CheckpointError(
                f"Expected data of classes that are trusted in {path}, got {name!r}: give data=... yourself, or {advice(name)}"
            )
    return OmegaConf.create(plain)


def labelled_rows(settings: DictConfig, space: DesignSpace, properties: Sequence[Property]) -> DesignTable:
    """Returns the rows of a data set's table that have a label, without duplicates, in the order of their source.

    Designs of further tables are left out, since they were chosen and follow no distribution of their own. Of an analytic
    problem, which has any number of rows, it returns the first 20,000.

    Raises:
        ConfigError: if the data set has other parameters or another number of properties.
    """
    data: DesignDataModule = instantiate(settings, _convert_="all")
    names = [prop.name for prop in data.properties]
    if data.space.names != space.names or len(names) != len(properties):
        raise ConfigError(
            f"Expected rows with {[*space.names, *(prop.name for prop in properties)]}, got {[*data.space.names, *names]}: "
            "give the data=... of the run, or the run=... of the candidates."
        )
    # the candidates may have a more accurate version of the property that the run was trained on
    data.properties = tuple(properties)
    data.added = data.tested = ()
    table = data.with_all_rows().split.train
    return table.take(table.y.isfinite().all(dim=1).nonzero()[:_MOST, 0])


def _nodes_with_target(node: object) -> Iterator[dict]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from _nodes_with_target(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes_with_target(value)


def _is_trusted_class(name: str) -> bool:
    """Whether a name is that of a class of a trusted package, which a module of it may import from another one."""
    module, _, attribute = name.rpartition(".")
    if not is_trusted(module):
        return False
    try:
        value = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return False
    return isinstance(value, type) and is_trusted(value.__module__)
