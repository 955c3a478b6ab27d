"""Labels by a trained surrogate, where DFT costs too much."""

from __future__ import annotations

__all__ = ["SurrogateOracle"]

import functools
import hashlib
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from matdesinne.network import load_network, run_folder
from matdesinne.oracles.base import Column, Labels, Oracle
from matdesinne.surrogates.base import Surrogate


class SurrogateOracle(Oracle):
    """Mean and spread that the ensemble of a run predicts.

    Args:
        run: folder that ``train.py`` wrote, or ``"pretrained"``.
        part: name of a surrogate of the run: ``"surrogate"``, or ``"accurate_band_gap"`` and the like.
        chunk: number of designs in one task.
    """

    def __init__(self, run: str, part: str, chunk: int) -> None:
        self._path = run_folder(run) / f"{part}.safetensors"
        surrogate = _load(self._path)
        super().__init__(surrogate.space)
        self.chunk, self.prototype = chunk, surrogate.prototype
        self._units = {prop.name: prop.unit for prop in surrogate.properties}
        # part of the settings: other weights under the same name are another oracle
        self._content = hashlib.sha256(self._path.read_bytes()).hexdigest()

    def columns(self) -> dict[str, Column]:
        """Every property and its spread, e.g. ``band_gap`` and ``band_gap_std``."""
        names = {name: unit for prop, unit in self._units.items() for name, unit in ((prop, unit), (f"{prop}_std", unit))}
        return {name: Column(unit) for name, unit in names.items()}

    def settings(self) -> dict[str, object]:
        """The checksum of the weights."""
        return {"oracle": "surrogate", "weights": self._content}

    def _label(self, x: Float[Tensor, "n dx"]) -> Labels:
        mean, std = _load(self._path).predict_many(x.float())
        pairs = zip(self._units, mean.T.tolist(), std.T.tolist(), strict=True)
        return {name: values for prop, means, stds in pairs for name, values in ((prop, means), (f"{prop}_std", stds))}


@functools.cache
def _load(path: Path) -> Surrogate:
    """Reads the weights once in each process; an oracle is sent to workers without its network."""
    return load_network(Surrogate, path.parent, path.stem)
