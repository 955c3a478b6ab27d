"""The unstrained layer: its relaxation, its energy and gap, and the oracle that labels strained ones."""

from __future__ import annotations

__all__ = ["Reference", "Start", "prepare_reference", "read_start_layer", "relaxed_cell"]

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from matdesinne.errors import ConfigError, LabellingError
from matdesinne.files import atomic_path, read_json, write_json
from matdesinne.labelling.points import Points
from matdesinne.labelling.run import label_points
from matdesinne.layers.structure import Layer, complete_oracle, cutoffs, layer_space, read_layer
from matdesinne.oracles.gpaw import GPAWOracle
from matdesinne.oracles.relaxation import Relaxation, relax_layer
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype

if TYPE_CHECKING:
    from ase import Atoms

_OPEN = 0.02
"""Smallest gap of a semiconductor in eV."""
_SETTINGS = ("strain", "angle", "parameters", "relax_cell", "cell_cutoff", "height", "vacuum", "seed")
"""What, besides structure and oracle, the labels of a folder depend on."""


@dataclass(frozen=True)
class Reference:
    """The relaxed unstrained layer.

    Args:
        oracle: labels its strained cells; its prototype are the relaxed atoms.
        gap: in eV, on the finest grid of k-points.
    """

    oracle: GPAWOracle
    gap: float

    def sentence(self) -> str:
        """Say its cell and its gap."""
        values = {parameter.name: parameter.reference for parameter in self.oracle.space.parameters}
        a, b, gamma = (values[name] for name in ("a", "b", "gamma"))
        return (
            f"The relaxed layer has a = {a:.4f} and b = {b:.4f} angstrom, gamma = {gamma:.2f} degree and a gap of "
            f"{self.gap:.3f} eV."
        )


@dataclass(frozen=True)
class Start:
    """The layer of a structure file before any calculation.

    Args:
        layer: as it is in the file.
        settings: of the oracle, complete.
        oracle: has the columns of that of `Reference`.
    """

    layer: Layer
    settings: Mapping[str, Any]
    oracle: GPAWOracle


def read_start_layer(config: DictConfig) -> Start:
    """Read a structure file and complete the settings of the oracle.

    Raises:
        DatasetError: if the file holds no layer.
        ConfigError: if the oracle cannot work here or for this layer.
    """
    layer = read_layer(config.structure, config.height, config.vacuum)
    settings = complete_oracle(_plain(config.oracle), layer)
    oracle = _oracle(settings, _space(config, layer), layer.prototype, 0.0)
    oracle.check()
    return Start(layer, settings, oracle)


def prepare_reference(config: DictConfig, start: Start, folder: Path) -> Reference:
    """Relax the layer and label it; what the folder has of this already is read.

    ``reference.cif`` and ``reference.extxyz`` are the relaxed layer.

    Raises:
        ConfigError: if the layer is a metal, or the folder was started with other settings.
        LabellingError: if its calculation failed.
    """
    layer, settings = start.layer, start.settings
    _keep_settings(config, layer, settings, folder / "layer.json")
    if config.relax_cell:
        cutoff = config.cell_cutoff or cutoffs(layer)[1]
        layer = _relax_cell(start.oracle, layer, cutoff, instantiate(config.executor), folder / "cell.extxyz")
    oracle = _oracle(settings, _space(config, layer), layer.prototype, None)
    space = oracle.space
    x = torch.tensor([[parameter.reference for parameter in space.parameters]], dtype=torch.float64)
    unstrained = Points(x, torch.zeros(1, dtype=torch.long))
    run = label_points(oracle, unstrained, instantiate(config.executor), folder / "reference")
    if run.failed:
        raise LabellingError(f"Expected labels of the unstrained layer, got a failure: {run.failed[0]['reason']}")
    [row] = run.rows
    gap = float(row["band_gap_fine" if "band_gap_fine" in row else "band_gap"])  # type: ignore[arg-type]
    if gap < _OPEN:
        raise ConfigError(f"Expected a layer with a band gap, got one of {gap:.3g} eV: a metal has no designs for a gap.")
    atoms = layer.prototype.atoms(space.design(x[0].tolist()))
    if oracle.relaxation is not None:
        atoms.positions = np.array(row["relaxed_positions"]).reshape(-1, 3)
    _write(atoms, folder)
    prototype = replace(layer.prototype, positions=atoms.get_scaled_positions(wrap=False).round(9).tolist())
    final = _oracle(settings, space, prototype, float(row["energy"]))  # type: ignore[arg-type]
    return Reference(final, gap)


def _space(config: DictConfig, layer: Layer) -> DesignSpace:
    return layer_space(layer, config.strain, config.angle, _plain(config.parameters or {}))


def _plain(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


def _oracle(settings: Mapping[str, Any], space: DesignSpace, prototype: Prototype, energy: float | None) -> GPAWOracle:
    """The oracle of settings; built by a call, since Hydra would turn a space into a dictionary."""
    arguments = {name: value for name, value in settings.items() if name != "_target_"}
    changes = {"space": space, "prototype": prototype, "reference_energy": energy}
    return get_class(settings["_target_"])(**{**arguments, **changes})


def _keep_settings(config: DictConfig, layer: Layer, settings: Mapping[str, Any], path: Path) -> None:
    """Write the settings that a folder is started with, or compare them.

    Raises:
        ConfigError: if they are others.
    """
    asked = {name: _plain(config[name]) for name in _SETTINGS}
    asked |= {"structure": {"prototype": layer.prototype.to_dict(), "cell": dict(layer.cell)}, "oracle": dict(settings)}
    kept = read_json(path)
    if kept is None:
        write_json(path, asked)
    elif isinstance(kept, dict) and (other := [name for name, value in asked.items() if kept.get(name) != value]):
        raise ConfigError(
            f"Expected the settings that {path.parent} was started with, got another {' and '.join(other)}: take another "
            "folder=."
        )


def _relax_cell(oracle: GPAWOracle, layer: Layer, cutoff: float, executor: Executor, trace: Path) -> Layer:
    """The layer with relaxed a, b, gamma and atoms; a file beside the trace holds the result.

    Raises:
        LabellingError: if the calculation failed.
    """
    result = trace.with_suffix(".json")
    if (kept := read_json(result)) is None:
        with executor:
            try:
                kept = executor.submit(relaxed_cell, oracle, layer, cutoff, trace).result()
            except Exception as error:  # GPAW may raise anything
                reason = " ".join(str(error).split())
                raise LabellingError(
                    f"Expected a relaxed cell, got {type(error).__name__}: {reason}: give a better start, or relax_cell=false."
                ) from error
        write_json(result, kept)
    return Layer(Prototype(**kept["prototype"]), kept["cell"])  # type: ignore[index]


def relaxed_cell(oracle: GPAWOracle, layer: Layer, cutoff: float, trace: Path) -> dict[str, object]:
    """Relax a layer with its cell, as a task for a worker; returns `Layer` as plain containers."""
    atoms = layer.prototype.atoms(dict(layer.cell))
    atoms.calc = oracle.calculator(cutoff=cutoff, symmetric=True)
    limits = oracle.relaxation or Relaxation(0.02, 60)
    relaxed = layer.moved_to(relax_layer(atoms, limits.force / 2, limits.steps, trace))
    return {"prototype": relaxed.prototype.to_dict(), "cell": dict(relaxed.cell)}


def _write(atoms: Atoms, folder: Path) -> None:
    import ase.io

    for name in ("reference.cif", "reference.extxyz"):
        with atomic_path(folder / name) as temporary:
            ase.io.write(temporary, atoms)
