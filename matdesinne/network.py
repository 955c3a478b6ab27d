"""What models and surrogates share: scales as buffers, settings of their training, and checkpoints of plain containers."""

from __future__ import annotations

__all__ = ["CHECKPOINT_KEY", "Batch", "DesignNetwork", "Optimization", "load_network", "run_folder", "save_network"]

import hashlib
import importlib
import inspect
import itertools
import json
import zipfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self, TypedDict, TypeVar, get_args

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

CHECKPOINT_KEY = "matdesinne"
"""Under which a checkpoint holds the description of its module."""

_OptimizerName = Literal["adamw", "soap", "muon"]

_LEAST = {"depth": 0, **dict.fromkeys(("blocks", "components", "hidden", "latent", "members", "pieces", "kpoints"), 1)}
"""Sizes of networks by the name that every module gives them."""

M = TypeVar("M", bound="DesignNetwork")


class Batch(NamedTuple):
    """Rows of a data set in physical units; `bands` holds auxiliary labels where the data carry them, see `DesignTable`."""

    x: Float[Tensor, "n dx"]
    y: Float[Tensor, "n dy"]
    bands: tuple[BandLabels, ...] = ()


@dataclass(frozen=True)
class Optimization:
    """How a module is trained: an optimiser with a linear warm-up, and a decay of its rate.

    Args:
        optimizer: ``"adamw"``, or ``"soap"`` for small networks on few rows: AdamW in the eigenbasis of Shampoo's
            preconditioner (Vyas et al. 2024, arXiv 2409.11321); ``"muon"`` for wider ones on many rows: square weight matrices
            move by the orthogonal factor of their momentum, all else by AdamW (Jordan et al. 2024,
            kellerjordan.github.io/posts/muon).
        learning_rate: the peak.
        weight_decay: decoupled decay (Loshchilov and Hutter 2019, arXiv 1711.05101).
        batch_size: rows a step.
        epochs: passes over the training rows, where the trainer does not set ``max_epochs``.
        warmup: fraction of all steps in which the rate rises.
        final: share of the rate in the last step: 0 is reached by a cosine, any other exponentially, and 1 keeps the rate.
        clip: largest norm of the gradient, where the trainer does not set ``gradient_clip_val``.
    """

    optimizer: _OptimizerName = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch_size: int = 1024
    epochs: int = 100
    warmup: float = 0.05
    final: float = 0.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.optimizer not in get_args(_OptimizerName):
            raise ConfigError(
                f"Expected optimizer out of {list(get_args(_OptimizerName))}, got {self.optimizer!r}: choose one."
            )
        if self.batch_size < 1 or self.epochs < 1:
            raise ConfigError(
                f"Expected batch_size and epochs of at least 1, got {self.batch_size} and {self.epochs}: raise them."
            )
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and self.clip > 0):
            raise ConfigError(
                "Expected learning_rate > 0, weight_decay >= 0 and clip > 0, got "
                f"{self.learning_rate}, {self.weight_decay} and {self.clip}: correct them."
            )
        if not (0 <= self.warmup < 1 and 0 <= self.final <= 1):
            raise ConfigError(
                f"Expected 0 <= warmup < 1 and 0 <= final <= 1, got {self.warmup} and {self.final}: correct them."
            )


class Description(TypedDict):
    """Plain form of a module: enough to build it again without its weights."""

    version: str
    name: str
    settings: dict[str, object]


class DesignNetwork(nn.Module):
    """A network over a design space; `matdesinne.training.base.LightningTask` trains it.

    A subclass calls ``save_hyperparameters(ignore=["space", "properties", "prototype"])``: what is left are plain containers.

    Args:
        space: the designs.
        properties: what they have, in the order of the columns of y.
        optimization: fields of `Optimization`.
    """

    def __init__(
        self, space: DesignSpace, properties: Sequence[Property], optimization: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        constant = [parameter.name for parameter in space.parameters if parameter.lower == parameter.upper]
        if constant:
            raise ConfigError(f"Expected lower < upper for every parameter to train on, got one value for {constant}: drop it.")
        self.space = space
        self.properties = tuple(properties)
        self.optimization = Optimization(**(optimization or {}))  # type: ignore[arg-type]
        self.hparams: dict[str, object] = {}
        """Arguments of the constructor but space, properties and prototype."""

    def save_hyperparameters(self, ignore: Sequence[str] = (), logger: bool = False) -> None:
        """Keep the arguments of the constructor that calls this, as Lightning's modules do; nothing is logged."""
        frame = inspect.currentframe()
        assert frame is not None and frame.f_back is not None and not logger
        names, _, _, values = inspect.getargvalues(frame.f_back)
        self.hparams = {name: values[name] for name in names if name != "self" and name not in ignore}
        for name, least in _LEAST.items():
            _check_count(name, self.hparams.get(name), least)

    @property
    def trains_in_parts(self) -> bool:
        """Whether a training step may leave parameters without a gradient; several processes must be told."""
        return False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @abstractmethod
    def fit_scales(self, batch: Batch) -> None:
        """Learn means, spreads and whatever else is not trained by gradients, from the training rows."""

    def describe(self) -> Description:
        """Plain containers from which `build` makes the same untrained module."""
        settings: dict[str, object] = {
            **{name: _plain(value) for name, value in self.hparams.items()},
            "space": self.space.to_dict(),
            "properties": [asdict(prop) for prop in self.properties],
        }
        return {
            "version": matdesinne.__version__,
            "name": f"{type(self).__module__}.{type(self).__name__}",
            "settings": settings,
        }

    @classmethod
    def build(cls, description: Description) -> Self:
        """Make an untrained module from what `describe` gave.

        Raises:
            CheckpointError: if it describes something else than this class.
        """
        kind = _find_class(description["name"])
        if not issubclass(kind, cls):
            raise CheckpointError(
                f"Expected the weights of a {cls.__name__}, got those of a {kind.__name__}: give another file or another model."
            )
        settings = dict(description["settings"])
        space = DesignSpace.from_dict(settings.pop("space"))  # type: ignore[arg-type]
        properties = [Property(**entry) for entry in settings.pop("properties")]  # type: ignore[attr-defined]
        if settings.get("prototype") is not None:
            settings["prototype"] = Prototype(**settings["prototype"])  # type: ignore[arg-type]
        return kind(space=space, properties=properties, **settings)  # type: ignore[arg-type]

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path) -> Self:
        """Rebuild a module from a Lightning checkpoint, without pickle.

        Raises:
            CheckpointError: if the file is missing, damaged, or holds another class.
        """
        try:
            with zipfile.ZipFile(checkpoint_path) as archive:  # torch itself does not look at the checksums
                if archive.testzip() is not None:
                    raise ValueError("a wrong checksum")
            content = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
            description, state = content[CHECKPOINT_KEY], content["state_dict"]
        except Exception as error:  # torch.load raises what its parsers raise, for any damage
            raise CheckpointError(
                f"Expected a checkpoint of MatDesINNe at {checkpoint_path}, got {type(error).__name__}: "
                "the file is missing, damaged or foreign; train again or give another path."
            ) from error
        return _fill(_rebuilt(cls, description, checkpoint_path), state, checkpoint_path)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss under ``"loss"`` and its parts under their own names, as scalars."""
        return self._terms(batch)

    def weight(self, batch: Batch) -> int:
        """Number of rows whose mean the terms of a batch are; batches, and parts of one in several processes, count by it."""
        return len(batch.x)

    @abstractmethod
    def _terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss under ``"loss"`` and its parts under their own names, as scalars."""


def save_network(module: DesignNetwork, folder: str | Path, name: str) -> None:
    """Write ``NAME.safetensors`` (weights) and ``NAME.json`` (description, checksum of the weights) into a folder."""
    folder = Path(folder)
    content = safetensors.torch.save({key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()})
    with atomic_path(folder / f"{name}.safetensors") as temporary:
        temporary.write_bytes(content)
    write_json(folder / f"{name}.json", {**module.describe(), "sha256": hashlib.sha256(content).hexdigest()})


def run_folder(name: str | Path) -> Path:
    """The folder of a run of ``train.py``, or of the weights that come with the package for the name ``"pretrained"``."""
    return Path(__file__).parent / "pretrained" if str(name) == "pretrained" else Path(name)


def load_network(kind: type[M], folder: str | Path, name: str) -> M:
    """Read what `save_network` wrote.

    Raises:
        CheckpointError: if a file is missing, damaged, or holds another class.
    """
    path = Path(folder) / f"{name}.safetensors"
    try:
        description = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        content = path.read_bytes()
        if description.get("sha256") not in (None, hashlib.sha256(content).hexdigest()):
            raise ValueError("a checksum that is not the one in the .json")
        state = safetensors.torch.load(content)
    except Exception as error:  # the parsers raise what they raise, for any damage
        raise CheckpointError(
            f"Expected weights {path} and their .json, got {type(error).__name__} ({error}): "
            "give a folder that train.py wrote, or train again."
        ) from error
    return _fill(_rebuilt(kind, description, path), state, path)


def _rebuilt(kind: type[M], description: Description, path: str | Path) -> M:
    try:
        return kind.build(description)
    except CheckpointError:
        raise
    except Exception as error:  # any setting may be wrong in any way
        raise CheckpointError(
            f"Expected the description of a {kind.__name__} with {path}, got {type(error).__name__} ({error}): "
            "the file is damaged or of another version; train again."
        ) from error


def _fill(module: M, state: Mapping[str, Tensor], path: str | Path) -> M:
    try:
        module.load_state_dict(dict(state))
    except Exception as error:  # any entry may be anything
        raise CheckpointError(
            f"Expected weights of a {type(module).__name__} in {path}, got tensors that do not fit: the file is damaged or of "
            "another version; train again."
        ) from error
    return module.eval()


def _find_class(name: str) -> type:
    """Find a class by its full name, inside this package only: a file must not choose what code runs."""
    module_name, _, class_name = str(name).rpartition(".")
    if module_name.split(".")[0] == matdesinne.__name__:
        try:
            kind = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError, ValueError):  # a name can be any text
            kind = None
        if isinstance(kind, type) and issubclass(kind, DesignNetwork):
            return kind
    raise CheckpointError(
        f"Expected a model or surrogate of matdesinne, got {name!r}: the file is foreign or of another version."
    )


def _check_count(name: str, value: object, least: int) -> None:
    values = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if not all(isinstance(entry, int) and entry >= least for entry in values):
        raise ConfigError(f"Expected {name} as whole numbers of at least {least}, got {value!r}: correct {name}.")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return value
