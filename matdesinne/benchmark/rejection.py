"""Reference designs by rejection: uniform designs whose predicted property is the wanted one. Exact, and slow."""

from __future__ import annotations

__all__ = ["Rejection", "reject"]

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target

_CHUNK_ROWS = 1 << 15


@dataclass(frozen=True)
class Rejection:
    """Uniform designs near one target, in the order in which they were drawn.

    Args:
        designs: physical units, shape [n, dx].
        drawn: designs drawn until there were enough, or until the limit.
        seconds: wall time of drawing and predicting these.
    """

    designs: Float[Tensor, "n dx"]
    drawn: int
    seconds: float


def reject(
    surrogate: Surrogate,
    targets: Sequence[Target],
    tolerance: float,
    count: int,
    limit: int,
    generator: torch.Generator,
) -> list[Rejection]:
    """Draw one pool of uniform designs and keep, for each target, those within the tolerance.

    Args:
        surrogate: predicts the properties.
        targets: what is wanted.
        tolerance: largest distance to the target, in the unit of each property.
        count: designs to keep for each target.
        limit: largest size of the pool; a rare target gets fewer designs.
        generator: source of randomness.

    Returns:
        The designs for each target, at most `count`.
    """
    kept: list[list[Tensor]] = [[] for _ in targets]
    found, drawn, seconds = [0] * len(targets), [0] * len(targets), [0.0] * len(targets)
    start, total = time.perf_counter(), 0
    progress = tqdm(total=limit, desc="Rejection sampling", unit="design", unit_scale=True, leave=False)
    while total < limit and min(found) < count:
        designs = surrogate.space.sample(min(_CHUNK_ROWS, limit - total), generator)
        mean, _ = surrogate.predict_many(designs)
        total += len(designs)
        progress.update(len(designs))
        for i, target in enumerate(targets):
            if found[i] < count:
                near = designs[(target.residual(mean).abs() <= tolerance).all(dim=1)]
                kept[i].append(near)
                found[i], drawn[i], seconds[i] = found[i] + len(near), total, time.perf_counter() - start
    progress.close()
    return [Rejection(torch.cat(kept[i])[:count], drawn[i], seconds[i]) for i in range(len(targets))]
