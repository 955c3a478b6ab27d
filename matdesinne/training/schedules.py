"""Learning rates over the steps of a training: a linear warm-up, then a decay."""

from __future__ import annotations

__all__ = ["warmup_cosine", "warmup_exponential"]

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from matdesinne.errors import ConfigError


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.05) -> LambdaLR:
    """Rise to the optimizer's learning rate in a fraction `warmup` of all steps, then fall to zero along half a cosine.

    Raises:
        ConfigError: if the fraction is not in [0, 1).
    """
    return _schedule(optimizer, total_steps, warmup, lambda done: 0.5 * (1 + math.cos(math.pi * done)))


def warmup_exponential(optimizer: Optimizer, total_steps: int, final: float, warmup: float = 0.0) -> LambdaLR:
    """Rise to the optimizer's learning rate in a fraction `warmup` of all steps, then fall exponentially to a share `final`.

    Raises:
        ConfigError: if a fraction is out of range.
    """
    if not 0 < final <= 1:
        raise ConfigError(f"Expected 0 < final <= 1, got {final}: correct the scheduler.")
    return _schedule(optimizer, total_steps, warmup, lambda done: final**done)


def _schedule(optimizer: Optimizer, total_steps: int, warmup: float, decay: Callable[[float], float]) -> LambdaLR:
    if not 0 <= warmup < 1:
        raise ConfigError(f"Expected 0 <= warmup < 1, got {warmup}: correct the scheduler.")
    rise = max(int(warmup * total_steps), 1)

    def factor(step: int) -> float:
        return (step + 1) / rise if step < rise else decay(min((step - rise) / max(total_steps - rise, 1), 1.0))

    return LambdaLR(optimizer, factor)
