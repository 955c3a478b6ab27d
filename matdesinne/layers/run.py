"""The steps of `design.py layer.cif` behind the reference: what is learnt, the labelling, the check of candidates."""

from __future__ import annotations

__all__ = ["check_candidates", "learn", "read_properties"]

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from matdesinne.bands import gap_level
from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.files import atomic_path
from matdesinne.labelling.points import SobolPoints
from matdesinne.labelling.validation import Validation, validate
from matdesinne.labelling.validation_page import write_validations
from matdesinne.layers.learning import Learning, Result
from matdesinne.layers.reference import Reference
from matdesinne.oracles.gpaw import GPAWOracle
from matdesinne.structures import Prototype
from matdesinne.targets import Property, Target

_RESOLUTION = {"gap": 0.01, "strain_energy": 0.005, "thickness": 0.002}
_ALWAYS = ("band_gap_fine", "direct_gap_fine", "strain_energy", "thickness")
"""What is learnt where the oracle computes it, beside what the target asks for."""
_OUTLIER = 0.1


def read_properties(config: DictConfig, reference: Reference) -> tuple[list[Property], dict[str, object]]:
    """What the surrogate learns, and the target by names.

    Raises:
        ConfigError: if the oracle does not compute what the target asks for, or it is nothing to learn.
        TargetError: if the target is no number or interval.
    """
    plain = OmegaConf.to_container(config.target) if OmegaConf.is_config(config.target) else config.target
    target = plain if isinstance(plain, dict) else {str(config.property): plain}
    flat = float(max(reference.run.values("thickness"), default=0.0)) < 0.01 if "thickness" else False
    return [], target
