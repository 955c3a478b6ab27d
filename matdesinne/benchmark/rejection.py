"""Reference designs by rejection sampling: uniform designs whose predicted properties are near the target."""

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
    """The uniform designs near one target, in the order in which they were drawn."""

    designs: Float[Tensor, "n dx"]
    drawn: int  # designs drawn until there were enough, or until the limit
    seconds: float  # wall time of drawing and predicting them


def reject(
    surrogate: Surrogate, targets: Sequence[Target], tolerance: float, count: int, limit: int, generator: torch.Generator
) -> list[Rejection]:
    """Draw one pool of uniform designs and keep, for each target, at most `count` designs within the tolerance.

    Args:
        surrogate: predicts the properties.
        targets: they share the pool.
        tolerance: largest distance to the target, in the unit of each property.
        count: designs to keep for each target.
        limit: largest size of the pool; for a rare target there may be fewer designs than `count`.
        generator: source of randomness.
    """
    near: list[list[Tensor]] = [[] for _ in targets]
    counts, drawn, seconds = [0] * len(targets), [0] * len(targets), [0.0] * len(targets)
    start, total = time.perf_counter(), 0
    progress = tqdm(total=limit, desc="Rejection sampling", unit="design", unit_scale=True, leave=False)
    while total < limit and min(counts) < count:
        designs = surrogate.space.sample(min(_CHUNK_ROWS, limit - total), generator)
        mean, _ = surrogate.predict_many(designs)
        total += len(designs)
        progress.update(len(designs))
        for i, target in enumerate(targets):
            if counts[i] < count:
                near[i].append(designs[(target.residual(mean).abs() <= tolerance).all(dim=1)])
                counts[i] += len(near[i][-1])
                drawn[i], seconds[i] = total, time.perf_counter() - start
    progress.close()
    return [Rejection(torch.cat(near[i])[:count], drawn[i], seconds[i]) for i in range(len(targets))]
