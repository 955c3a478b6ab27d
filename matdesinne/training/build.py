"""From a configuration and a data set to the LightningModule that it describes."""

from __future__ import annotations

__all__ = ["build_module", "check_device", "check_property"]

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from matdesinne.data.datamodule import DesignDataModule
from matdesinne.errors import ConfigError, DeviceError, MatDesINNeError
from matdesinne.targets import Property
from matdesinne.training.module import DesignModule
from matdesinne.trust import advice, is_trusted


def build_module(config: DictConfig, data: DesignDataModule) -> DesignModule:
    """Make the untrained module of a configuration for the designs and properties of a data set.

    The configuration is a constructor call of a `DesignModule` whose key ``network`` is a constructor call of its network. The
    network gets those of the arguments ``space``, ``properties``, ``prototype`` and ``kpoints`` that it takes from the data.

    Raises:
        ConfigError: if settings do not fit, or a class belongs to a package that is not trusted, see `trusting`.
    """
    for name in (part.get("_target_") for part in (config, config.get("network") or {})):
        if isinstance(name, str) and not is_trusted(name):
            raise ConfigError(f"Expected a class that is trusted, got {name!r}: {advice(name)}")
    settings = {key: value for key, value in config.items() if key not in ("network", "distillation")}
    try:
        network = _build_network(config.network, data)
        # the network is an argument, not a part of the configuration: Hydra would turn frozen dataclasses into dictionaries
        module = instantiate(settings, _partial_=True, _convert_="all")(network)
    except MatDesINNeError:
        raise
    except InstantiationException as error:
        if isinstance(error.__cause__, MatDesINNeError):
            raise error.__cause__ from error
        raise ConfigError(f"Expected settings that fit, got: {' '.join(str(error).split())}") from error
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:  # what torch thinks of a size or a name
        raise ConfigError(
            f"Expected settings of {config.get('_target_')} that fit, got {type(error).__name__} ({error}): correct them."
        ) from error
    if not isinstance(module, DesignModule):
        raise ConfigError(f"Expected the configuration of a DesignModule, got {config.get('_target_')}: correct its _target_.")
    return module


def _build_network(config: DictConfig, data: DesignDataModule) -> torch.nn.Module:
    parameters = inspect.signature(get_class(config._target_)).parameters
    known: dict[str, Any] = {"space": data.space, "properties": data.properties, "prototype": data.prototype}
    if "kpoints" in parameters and config.get("kpoints") is None:  # reads the table
        bands = data.training_rows.bands
        if not bands:
            raise ConfigError("Expected band energies in the data for surrogate=bands, got none: use surrogate=mlp.")
        known["kpoints"] = len(bands[0].kpoints)
    given = {name: value for name, value in known.items() if name in parameters and config.get(name) is None}
    settings = {key: value for key, value in config.items() if key not in given}
    return instantiate(settings, _partial_=True, _convert_="all")(**given)


def check_property(name: str | None, properties: Sequence[Property]) -> None:
    """Raise a `ConfigError` if the property that a user asked for by ``property=`` is not there."""
    known = [prop.name for prop in properties]
    if name is not None and name not in known:
        raise ConfigError(f"Expected property out of {known}, got {name!r}: use another data set or run, or drop property=.")


def check_device(trainer: DictConfig) -> torch.device:
    """The device that a trainer's configuration stands for; raises a `DeviceError` if it is not there."""
    asked = {key: trainer[key] for key in ("_target_", "accelerator", "devices")}
    try:
        return instantiate(asked, logger=False, barebones=True).strategy.root_device
    except InstantiationException as error:
        if not isinstance(error.__cause__, MisconfigurationException):
            raise
        reason = " ".join(str(error.__cause__).split())
        raise DeviceError(
            f"Expected the device trainer.accelerator={trainer.accelerator}, trainer.devices={trainer.devices}, got none "
            f"({reason}): use trainer.accelerator=cpu, or install a build of torch for your device."
        ) from error
