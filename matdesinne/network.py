"""What models and surrogates share: a design space, a description in plain containers, and files of weights."""

from __future__ import annotations

__all__ = [
    "Batch",
    "DesignNetwork",
    "check_at_least",
    "described_properties",
    "load_network",
    "network_from_config",
    "run_folder",
    "save_network",
]

import hashlib
import importlib
import inspect
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, TypeVar

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

import matdesinne
from matdesinne.bands import BandLabels
from matdesinne.errors import CheckpointError, ConfigError
from matdesinne.files import atomic_path, write_json
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.targets import Property
from matdesinne.trust import advice, is_trusted

N = TypeVar("N", bound="DesignNetwork")


class Batch(NamedTuple):
    """Rows of a data set in physical units; `bands` holds auxiliary labels where the data carry them, see `DesignTable`.

    `relatives` holds rows of similar materials, each material's own batch, as designs of this one's space.
    """

    x: Float[Tensor, "n dx"]
    y: Float[Tensor, "n dy"]
    bands: tuple[BandLabels, ...] = ()
    relatives: tuple[Batch, ...] = ()


class DesignNetwork(nn.Module, ABC):
    """A network over designs and their properties, in the order of the columns of x and y; it uses torch alone.

    Every argument of a subclass's constructor is kept as an attribute of the same name (the convention of scikit-learn), so
    that `to_config` can describe the network.
    """

    def __init__(self, space: DesignSpace, properties: Sequence[Property]) -> None:
        super().__init__()
        constant = [parameter.name for parameter in space.parameters if parameter.lower == parameter.upper]
        if constant:
            raise ConfigError(f"Expected lower < upper for every parameter to train on, got one value for {constant}: drop it.")
        self.space = space
        self.properties = tuple(properties)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @abstractmethod
    def fit_scales(self, batch: Batch) -> None:
        """Learn means, spreads and whatever else is not trained by gradients, from the training rows."""

    def to_config(self) -> dict[str, object]:
        """Describe the network by package version, name of its class, and arguments of its constructor as plain containers.

        `network_from_config` makes the same untrained network from them.

        Raises:
            ConfigError: if its class lies in a package that is not trusted, or an argument was not kept as a plain attribute.
        """
        kind = type(self)
        name = f"{kind.__module__}.{kind.__qualname__}"
        try:
            settings = {key: _plain(getattr(self, key)) for key in inspect.signature(kind).parameters}
            json.dumps(settings)
            _find_class(name)
        except (AttributeError, TypeError, ValueError, CheckpointError) as error:
            raise ConfigError(
                f"Expected a {kind.__name__} that can be described, got {type(error).__name__} ({error}): keep "
                "every argument of its constructor as an attribute of the same name, and the class in a trusted package."
            ) from error
        return {"version": matdesinne.__version__, "name": name, "settings": settings}


def check_at_least(least: int, **sizes: int | Sequence[int]) -> None:
    """Raise a ConfigError that names the first size of a network that is no whole number, or below the least."""
    for name, size in sizes.items():
        entries = size if isinstance(size, Sequence) and not isinstance(size, str) else [size]
        if not all(isinstance(entry, int) and entry >= least for entry in entries):
            raise ConfigError(f"Expected {name} as whole numbers of at least {least}, got {size!r}: correct {name}.")


def network_from_config(config: Mapping[str, object]) -> DesignNetwork:
    """Make an untrained network from what `DesignNetwork.to_config` gave.

    Raises:
        CheckpointError: if it does not describe a network of this version of the package, or one of a package that is not
            trusted, see `trusting`.
    """
    try:
        settings = dict(config["settings"])  # type: ignore[call-overload]
        kind = _find_class(str(config["name"]))
        settings["space"] = DesignSpace.from_dict(settings["space"])
        settings["properties"] = [Property(**entry) for entry in settings["properties"]]
        if settings.get("prototype") is not None:
            settings["prototype"] = Prototype(**settings["prototype"])
        return kind(**settings)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged description can hold anything
        version = config.get("version") if isinstance(config, Mapping) else None
        raise CheckpointError(
            f"Expected the description of a network by matdesinne {matdesinne.__version__}, got one by version {version} that "
            f"does not fit ({type(error).__name__}: {error}): train again, or use that version."
        ) from error


def save_network(network: DesignNetwork, folder: str | Path, name: str) -> None:
    """Write ``NAME.safetensors`` (weights) and ``NAME.json`` (description, checksum of the weights) into a folder."""
    folder = Path(folder)
    content = safetensors.torch.save({key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()})
    with atomic_path(folder / f"{name}.safetensors") as temporary:
        temporary.write_bytes(content)
    write_json(folder / f"{name}.json", {**network.to_config(), "sha256": hashlib.sha256(content).hexdigest()})


def run_folder(name: str | Path) -> Path:
    """The folder of a run of ``train.py``, or of weights that come with the package.

    These are ``"pretrained"`` and, for relaxed layers, ``"pretrained/mos2"`` and the like.
    """
    return Path(__file__).parent / name if Path(name).parts[:1] == ("pretrained",) else Path(name)


def described_properties(folder: str | Path, name: str) -> set[str]:
    """The names of the properties of a network that `save_network` wrote, from its description alone.

    Raises:
        CheckpointError: if the description is missing or damaged.
    """
    path = Path(folder) / f"{name}.json"
    try:
        return {entry["name"] for entry in json.loads(path.read_text(encoding="utf-8"))["settings"]["properties"]}
    except Exception as error:  # a damaged description can hold anything
        raise CheckpointError(
            f"Expected the description of a network in {path}, got {type(error).__name__} ({error}): train again."
        ) from error


def load_network(kind: Callable[..., N], folder: str | Path, name: str) -> N:
    """Read what `save_network` wrote: a network in evaluation mode, on the CPU.

    It must be of the class `kind`, which may be abstract.

    Raises:
        CheckpointError: if a file is missing, damaged, of another version, or holds another class, or one of a package that
            is not trusted, see `trusting`.
    """
    path = Path(folder) / f"{name}.safetensors"
    try:
        config = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        content = path.read_bytes()
        if config.get("sha256") not in (None, hashlib.sha256(content).hexdigest()):
            raise ValueError("a checksum that is not the one in the .json")
        state = safetensors.torch.load(content)
        foreign = _foreign(str(config["name"])) if "name" in config else ""
    except Exception as error:  # the parsers raise what they raise, for any damage
        raise CheckpointError(
            f"Expected weights {path} and their .json, got {type(error).__name__} ({error}): "
            "give a folder that train.py wrote, or train again."
        ) from error
    if foreign:
        raise CheckpointError(f"Expected weights {path} of a class that is trusted, got those of {foreign}")
    try:
        network = network_from_config(config)
        network.load_state_dict(state)
    except Exception as error:  # any entry may be anything
        raise CheckpointError(f"Expected weights that fit in {path}, got others ({error}): train again.") from error
    assert isinstance(kind, type)
    if not isinstance(network, kind):
        raise CheckpointError(
            f"Expected the weights of a {kind.__name__} in {path}, got those of a {type(network).__name__}: give another file "
            "or another model."
        )
    return network.eval()  # type: ignore[return-value]  # an instance of kind, which may be abstract


def _find_class(name: str) -> type[DesignNetwork]:
    """Find a class by its full name, inside trusted packages only: a file must not choose what code runs."""
    if foreign := _foreign(name):
        raise CheckpointError(f"Expected a model or surrogate that is trusted, got {foreign}")
    module_name, _, class_name = name.rpartition(".")
    reason: object = "no such class"
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:  # a name can be any text
        kind, reason = None, error
    if isinstance(kind, type) and issubclass(kind, DesignNetwork) and not inspect.isabstract(kind):
        return kind
    raise CheckpointError(f"Expected a model or surrogate, got {name!r} ({reason}): the file is foreign or of another version.")


def _foreign(name: str) -> str:
    """The name of a class whose package is not trusted, and what to do about it; empty for another name."""
    return "" if is_trusted(name) else f"{name!r}: {advice(name)}"


def _plain(value: object) -> object:
    if isinstance(value, DesignSpace):
        return _plain(value.to_dict())
    if isinstance(value, Property | Prototype):
        return {key: _plain(entry) for key, entry in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return value
