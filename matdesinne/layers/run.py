"""The steps of `design.py layer.cif` after the reference: what is learnt, the labelling, the check of candidates."""

from __future__ import annotations

__all__ = ["check_candidates", "learn", "read_properties"]

import sys
from collections.abc import Sequence
from functools import partial
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
from matdesinne.layers.reference import Reference, Start
from matdesinne.oracles.gpaw import GPAWOracle
from matdesinne.targets import Property, Target

_OTHERS = {"strain_energy": 0.005, "thickness": 0.002}
"""Properties besides gaps that can be learnt, with their resolutions."""
_ALWAYS = ("band_gap_fine", "direct_gap_fine", *_OTHERS)
"""What is learnt where the oracle computes it, beside what the target asks for."""
_FLAT = 0.01
"""Thickness in angstrom of a layer that stays flat under strain."""
_OUTLIER = 0.1
"""Distance to the target above which a label is an outlier, in the unit of the property."""


def read_properties(config: DictConfig, start: Start) -> tuple[list[Property], dict[str, object]]:
    """What the surrogate learns, and the target by the names of properties.

    Raises:
        ConfigError: if the oracle does not compute what the target asks for, or it cannot be learnt.
        TargetError: if the target is anything but numbers or intervals.
    """
    plain = OmegaConf.to_container(config.target) if OmegaConf.is_config(config.target) else config.target
    target = {str(k): v for k, v in plain.items()} if isinstance(plain, dict) else {str(config.property): plain}
    oracle, heights = start.oracle, [z * start.layer.cell["c"] for _, _, z in start.layer.prototype.positions]
    for name in target:
        oracle.check_column(name)
        if gap_level(name) is None and name not in _OTHERS:
            raise ConfigError(f"Expected gaps, {' or '.join(_OTHERS)} in target=, got {name!r}: choose one.")
    flat = max(heights) - min(heights) < _FLAT  # its relaxation keeps the symmetry
    names = [name for name in _ALWAYS if name in oracle.columns() and not (name == "thickness" and flat)]
    properties = [_property(name, oracle) for name in dict.fromkeys([*names, *target])]
    Target.parse(target, properties)
    return properties, target


def _property(name: str, oracle: GPAWOracle) -> Property:
    if gap_level(name) is None:
        return Property(name, oracle.columns()[name].unit, resolution=_OTHERS[name])
    return Property(name, "eV", floor=0.0, margin=0.1, resolution=0.01)


def learn(
    config: DictConfig,
    settings: DictConfig,
    reference: Reference,
    properties: Sequence[Property],
    target: dict[str, object],
    folder: Path,
) -> Result:
    """Label strained cells and train the surrogate, see `Learning`; the settings of the training go to ``config.yaml``.

    Args:
        config: of ``layer.yaml``.
        settings: of ``train.py``.
        reference: the unstrained layer.
        properties: what is learnt.
        target: its first property is the one whose error ends the labelling.
        folder: of all files.
    """
    changes = {
        "folder": str(folder),
        "surrogates_folder": str(folder / "surrogates"),
        "trainer": {"enable_progress_bar": sys.stdout.isatty()},
    }
    asked = next(prop for prop in properties if prop.name == next(iter(target)))
    points = SobolPoints(config.labels, 0, config.seed).draw(reference.oracle.space)
    executor = partial(instantiate, config.executor)
    merged = OmegaConf.merge(settings, changes)
    assert isinstance(merged, DictConfig)
    learning = Learning(merged, reference.oracle, points, executor, folder, properties, asked, config.batch, config.accuracy)
    result = learning.run()
    with atomic_path(folder / "config.yaml") as temporary:
        OmegaConf.save(result.settings, temporary, resolve=True)
    return result


def check_candidates(config: DictConfig, found: Result, candidates: Candidates, folder: Path) -> dict[str, Validation]:
    """Label some candidates and compare the labels with the target, as ``label.py task=validate`` does.

    Their relaxations start where the atoms are predicted.
    """
    generator = torch.Generator().manual_seed(config.seed)
    executor = instantiate(config.executor)
    checks = validate([candidates], config.checked, found.oracle, executor, folder, generator)
    plain = OmegaConf.to_container(config, resolve=True)
    write_validations(checks, [candidates], folder, found.oracle.start, _OUTLIER, config.seed, plain)
    return checks
