"""The networks that the paper published: fetched on request, checked, read without running code of the files."""

from __future__ import annotations

__all__ = ["PublicWeights", "checksum", "load_public", "read_tensors"]

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from matdesinne.errors import CheckpointError
from matdesinne.network import DesignNetwork

N = TypeVar("N", bound=DesignNetwork)

_VARIABLE = "MATDESINNE_PUBLISHED_WEIGHTS"
_STAND_INS = (
    "models.MixtureDensityNetwork",
    "models.MixtureDiagNormalNetwork",
    "models.CategoricalNetwork",
    "__main__.CVAE",
    "__main__.Encoder",
    "__main__.Decoder",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.activation.ELU",
)
"""Classes of the objects in the files that hold whole networks; an empty class takes the place of each."""
_BUFFER = "tmp_var_"
"""Start of the names of tensors that FrEIA kept between the blocks, which are no weights."""
_BLOCKS = 6


@dataclass(frozen=True)
class PublicWeights:
    """Where the published files are, and the checksums of what is in them.

    Args:
        url: address of the repository's files at the pinned commit.
        files: path of each file in the repository by the name of its network.
        sha256: checksum of the weights in each file, see `checksum`; it does not depend on how a file packs them.
        root: a folder that has the repository's files; the environment variable MATDESINNE_PUBLISHED_WEIGHTS may name one;
            they are downloaded once into the user's cache when omitted.
    """

    url: str
    files: Mapping[str, str]
    sha256: Mapping[str, str]
    root: str | None = None

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Find or fetch one file, read its weights and compare them with the checksum.

        Raises:
            CheckpointError: if there is no such file, it cannot be read safely, or holds other weights.
        """
        path = self._file(self.files[name])
        found = {key: value for key, value in read_tensors(path).items() if not key.startswith(_BUFFER)}
        if (got := checksum(found)) != self.sha256[name]:
            raise CheckpointError(
                f"Expected weights with sha256 {self.sha256[name]} in {path}, got {got}: the file was changed; fetch the "
                "published one."
            )
        return found

    def _file(self, name: str) -> Path:
        root = self.root or os.environ.get(_VARIABLE)
        if root is None:
            return self._fetch(name)
        path = Path(root) / name
        if not path.is_file():
            raise CheckpointError(
                f"Expected {name} in the folder {root}, got no such file: correct published.weights.root or {_VARIABLE}."
            )
        return path

    def _fetch(self, name: str) -> Path:
        import pooch

        address = f"{self.url.rstrip('/')}/{name}"
        try:
            folder = pooch.os_cache("matdesinne") / "published_weights"
            return Path(pooch.retrieve(address, None, name.replace("/", "_"), folder, progressbar=True))
        except Exception as error:  # network and disk errors alike
            raise CheckpointError(
                f"Expected to fetch {address}, got {type(error).__name__} ({error}): check the network, or give a folder that "
                f"has the files of the repository by published.weights.root=... or the environment variable {_VARIABLE}."
            ) from error


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Returns the sha256 of names, shapes and little-endian float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().float().contiguous()
        digest.update(f"{name} {list(value.shape)}\n".encode())
        digest.update(value.numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a state dictionary, or of a whole pickled network, with ``weights_only=True``.

    No class or function that a file names is called but torch's own for tensors and containers: the modules of a pickled
    network become objects of empty classes, whose tensors are collected under the names of a state dictionary.

    Raises:
        CheckpointError: if the file is damaged or needs anything else.
    """
    try:
        with _stand_ins():
            content = torch.load(path, map_location="cpu", weights_only=True)
        tensors = dict(content) if isinstance(content, Mapping) else _collect(content)
        if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
            raise TypeError("something else than tensors by their names")
        return tensors
    except Exception as error:  # torch raises what it raises, for any damage
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"Expected a file of weights at {path}, got {type(error).__name__} ({reason}): fetch the published one."
        ) from error


def load_public(name: str, network: N, weights: PublicWeights) -> N:
    """Put published weights into a network of the same shape.

    Args:
        name: ``"forward"``, ``"inn"``, ``"cinn"``, ``"mdn"`` or ``"cvae"``.
        network: of the settings in ``conf/model/paper`` or ``conf/surrogate/paper``.
        weights: where to find them.

    Returns:
        The network in evaluation mode.

    Raises:
        CheckpointError: see `PublicWeights`; or if the weights do not fit.
    """
    tensors, names = weights.tensors(name), _NAMES[name]
    if name == "cvae":
        tensors = _joined_encoder(tensors)
    try:
        if set(tensors) != set(names):
            raise KeyError(f"the names {sorted(tensors)}")
        network.load_state_dict({**network.state_dict(), **{names[key]: value for key, value in tensors.items()}})
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"Expected published weights of {name} that fit {type(network).__name__}, got {reason}: use the published settings."
        ) from error
    return network.eval()


_FLOW_NAMES = {
    f"module_list.{2 * block + 1}.s{half}.{layer}.{kind}": f"network.module_list.{2 * block}.subnet{half}.{layer}.{kind}"
    for block in range(_BLOCKS)
    for half in (1, 2)
    for layer in (0, 2)
    for kind in ("weight", "bias")
}
"""Names of our weights by those of FrEIA at that time, whose first node is the input."""
_MDN_NAMES = {
    f"{theirs}.network.{layer}.{kind}": f"{ours}.{layer}.{kind}"
    for theirs, ours in (("pi_network", "weights"), ("normal_network", "gaussians"))
    for layer in (0, 2)
    for kind in ("weight", "bias")
}
_CVAE_NAMES = {
    f"{theirs}.{kind}": f"{ours}.{kind}"
    for theirs, ours in (
        ("encoder.linear", "encoder.0"),
        ("encoder.both", "encoder.2"),
        ("decoder.latent_to_hidden", "decoder.0"),
        ("decoder.hidden_to_out", "decoder.2"),
    )
    for kind in ("weight", "bias")
}


_NAMES = {"forward": _FLOW_NAMES, "inn": _FLOW_NAMES, "cinn": _FLOW_NAMES, "mdn": _MDN_NAMES, "cvae": _CVAE_NAMES}


def _joined_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published encoder gives mean and log-variance by a layer each, ours by one layer."""
    joined = dict(tensors)
    for kind in ("weight", "bias"):
        joined[f"encoder.both.{kind}"] = torch.cat([joined.pop(f"encoder.{part}.{kind}") for part in ("mu", "var")])
    return joined


class _Record:
    """An object of a pickled network: its attributes and nothing else."""

    _parameters: Mapping[str, Tensor | None]
    _modules: Mapping[str, _Record]


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Let torch's reader of weights put an empty class in the place of each class of the published networks."""
    before = torch.serialization.get_safe_globals()
    parts = [name.rpartition(".") for name in _STAND_INS]
    torch.serialization.add_safe_globals([type(short, (_Record,), {"__module__": module}) for module, _, short in parts])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _collect(record: object, prefix: str = "") -> dict[str, Tensor]:
    if not isinstance(record, _Record):
        raise TypeError(f"a {type(record).__name__}")
    tensors = {f"{prefix}{name}": value for name, value in record._parameters.items() if value is not None}
    for name, child in record._modules.items():
        tensors |= _collect(child, f"{prefix}{name}.")
    return tensors
