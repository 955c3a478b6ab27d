"""The designs of an exploration: generated ones for some targets, and the labelled rows of the data set."""

from __future__ import annotations

__all__ = ["Exploration", "gather"]

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from matdesinne.candidates import Candidates, read_candidates
from matdesinne.data.table import DesignTable
from matdesinne.errors import ConfigError
from matdesinne.exploration.embedding import Embedding, embed
from matdesinne.exploration.labelled_rows import data_settings, labelled_rows
from matdesinne.pipeline import InverseDesign
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property


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
    design = InverseDesign.load(
        config.run,
        instantiate(config.selection, _convert_="all"),
        instantiate(config.localization, _convert_="all"),
        config.accepted_error,
        config.refine_with,
    ).to(config.accelerator)
    if config.candidates is None:
        tables = _generate(design, config)
    else:
        tables = read_candidates([config.candidates] if isinstance(config.candidates, str) else list(config.candidates))
    space = design.surrogate.space
    if tables[0].space.names != space.names:
        raise ConfigError(
            f"Expected candidates with the parameters {list(space.names)} of the run, got {list(tables[0].space.names)}: "
            "give the run=... that they come from."
        )
    settings = config.get("data") or data_settings(config.run)
    labelled = None if settings is None else labelled_rows(settings, space, tables[0].properties)
    return Exploration(tuple(tables), design.surrogate.cpu(), labelled, folder, config.seed)


def _generate(design: InverseDesign, config: DictConfig) -> list[Candidates]:
    targets = OmegaConf.to_container(config.targets)
    if not isinstance(targets, list) or not targets:
        raise ConfigError(f"Expected targets=[...] with at least one, got {targets!r}: e.g. targets=[0.0,1.0].")
    generator = torch.Generator().manual_seed(config.seed)
    tables = [design.run(target, config.num_samples, generator).candidates for target in targets]
    return sorted(tables, key=lambda table: table.target.values)
