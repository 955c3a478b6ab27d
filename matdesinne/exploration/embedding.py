"""A map of the design space by UMAP."""

from __future__ import annotations

__all__ = ["Embedding", "embed"]

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.data.table import DesignTable
from matdesinne.errors import ConfigError
from matdesinne.transforms import BoxScaler

_ROWS = 4000
"""Largest number of designs on the map; more would hide each other."""
_NEIGHBORS = 15
_FEWEST = 8
"""Smallest number of different designs for a map."""


@dataclass(frozen=True)
class Embedding:
    """Designs and their places on a plane without units, where neighbours in the scaled design space are neighbours.

    They are rows of the data set, and candidates for each target.
    """

    labelled: tuple[DesignTable, Float[np.ndarray, "n 2"]] | None
    generated: tuple[tuple[Candidates, Float[np.ndarray, "n 2"]], ...]


def embed(scale: BoxScaler, labelled: DesignTable | None, generated: Sequence[Candidates], seed: int) -> Embedding | None:
    """Place labelled and generated designs on one plane, or return ``None`` if there are too few different ones.

    If there are too many, random ones of them are placed: two shares are labelled rows, and one share is the candidates for
    each target.

    References:
        McInnes, Healy and Melville, UMAP: uniform manifold approximation and projection for dimension reduction, 2018,
        arXiv 1802.03426.

    Raises:
        ConfigError: if umap-learn is not installed.
    """
    generator = torch.Generator().manual_seed(seed)
    share = _ROWS // (len(generated) + 2)
    rows = None if labelled is None else labelled.take(_choice(len(labelled), 2 * share, generator))
    shown = [table.take(_choice(len(table), share, generator)) for table in generated]
    designs = [*([] if rows is None else [rows.x]), *(table.designs for table in shown)]
    with torch.no_grad():
        coordinates = scale(torch.cat(designs))
    if len(coordinates.unique(dim=0)) < _FEWEST:
        return None
    places = np.split(_lay_out(coordinates, seed), np.cumsum([len(part) for part in designs])[:-1])
    first = None if rows is None else (rows, places.pop(0))
    return Embedding(first, tuple(zip(shown, places, strict=True)))


def _choice(count: int, limit: int, generator: torch.Generator) -> Tensor:
    """Returns at most `limit` row numbers, chosen at random, in ascending order."""
    return torch.randperm(count, generator=generator)[:limit].sort().values


def _lay_out(coordinates: Float[Tensor, "n d"], seed: int) -> Float[np.ndarray, "n 2"]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about features that are not used here: parametric UMAP, maps of further designs
        try:
            import umap
        except ImportError as error:
            raise ConfigError(
                "Expected umap-learn, which draws the map of the design space, got none: pip install umap-learn, or "
                "pip install 'matdesinne[explore]'."
            ) from error
        count = min(_NEIGHBORS, len(coordinates))
        distances, neighbors = NearestNeighbors(n_neighbors=count).fit(coordinates).kneighbors(coordinates)
        # given, because UMAP's exact search calls Python for every pair; with several jobs the result would be random
        reducer = umap.UMAP(
            n_neighbors=count,
            precomputed_knn=(neighbors, distances),
            force_approximation_algorithm=True,
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(reducer.fit_transform(coordinates.numpy()))
