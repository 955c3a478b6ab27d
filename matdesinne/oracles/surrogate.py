"""Labels by a trained surrogate: what the networks say, where DFT is too dear."""

from __future__ import annotations

__all__ = ["SurrogateOracle"]

import functools
import hashlib
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from matdesinne.network import load_network, run_folder
from matdesinne.oracles.base import Column, Columns, Oracle
from matdesinne.surrogates.base import Surrogate


class SurrogateOracle(Oracle):
    """Mean and spread of the ensemble of a run.

    Args:
        run: folder that ``train.py`` wrote, or ``"pretrained"``.
        part: which of its surrogates: ``"surrogate"``, or ``"accurate_band_gap"`` and the like.
        chunk: designs in one task.
    """

    def __init__(self, run: str, part: str, chunk: int) -> None:
        self._path = run_folder(run) / f"{part}.safetensors"
        surrogate = _load(self._path)
        super().__init__(surrogate.space)
        self.chunk, self.prototype = chunk, surrogate.prototype
        self._units = {prop.name: prop.unit for prop in surrogate.properties}
        # other weights under the same name are another oracle
        self._content = hashlib.sha256(self._path.read_bytes()).hexdigest()

    def columns(self) -> dict[str, Column]:
        """Every property and its spread."""
        names = {name: unit for prop, unit in self._units.items() for name, unit in ((prop, unit), (f"{prop}_std", unit))}
        return {name: Column(unit) for name, unit in names.items()}

    def settings(self) -> dict[str, object]:
        """The weights."""
        return {"oracle": "surrogate", "weights": self._content}

    def _label(self, x: Float[Tensor, "n dx"]) -> Columns:
        mean, std = _load(self._path).predict_many(x.float())
        pairs = zip(self._units, mean.T.tolist(), std.T.tolist(), strict=True)
        return {name: values for prop, means, stds in pairs for name, values in ((prop, means), (f"{prop}_std", stds))}


@functools.cache
def _load(path: Path) -> Surrogate:
    """Read the weights once a process: an oracle is sent to workers without its network."""
    return load_network(Surrogate, path.parent, path.stem).eval()
