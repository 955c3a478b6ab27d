"""Where results come from: the configuration, the versions and the machine, beside the results."""

from __future__ import annotations

__all__ = ["write_provenance"]

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

import matdesinne
from matdesinne.files import atomic_path, write_json

_PACKAGES = ("torch", "pytorch-lightning", "FrEIA", "numpy", "hydra-core")
_PLACES = ("folder", "surrogates_folder", "resume", "logger")
"""Settings that name places on one machine, or what does not change a result."""


def write_provenance(folder: Path, config: DictConfig, command: list[str]) -> None:
    """Write ``config.yaml`` and ``environment.json``.

    Args:
        folder: where to.
        config: of the run.
        command: the words of the command line.
    """
    kept = OmegaConf.masked_copy(config, [str(key) for key in config if key not in _PLACES])
    with atomic_path(folder / "config.yaml") as temporary:
        OmegaConf.save(kept, temporary, resolve=True)
    words = [word for word in command if word.lstrip("+~").partition("=")[0] not in _PLACES]
    write_json(folder / "environment.json", {"command": words, **_environment()})


def _environment() -> dict[str, object]:
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "packages": {"matdesinne": matdesinne.__version__, **{name: _version(name) for name in _PACKAGES}},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": devices,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The name of the processor as Linux gives it, elsewhere as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
