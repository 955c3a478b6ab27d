"""One training step against the same network written straightforwardly: FrEIA's passes, a loader of single rows."""

from __future__ import annotations

__all__ = ["TrainingRow", "plain_loss", "training_rows"]

import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from matdesinne.data.batches import TensorBatches
from matdesinne.data.table import DesignTable
from matdesinne.models.base import InverseModel
from matdesinne.models.cinn import CINN
from matdesinne.models.inn import INN
from matdesinne.network import Batch


@dataclass(frozen=True)
class TrainingRow:
    """Medians of the wall time of a training step on the CPU, with the batch, the gradient and the optimiser.

    Args:
        model: name of the generative model, and what a step trains of it.
        batch: rows of a step.
        step: seconds.
        reference: seconds of the straightforward step.
    """

    model: str
    batch: int
    step: float
    reference: float


def training_rows(model: InverseModel, rows: Batch, batch: int, steps: int) -> list[TrainingRow]:
    """Time both ways of training a model on the same rows; its weights move.

    A model that trains in parts, one a step, has a second row: a step of its whole loss.

    Args:
        model: a cINN or an INN whose scales are fitted.
        rows: at least two batches of them.
        batch: rows of a step.
        steps: steps that are timed.
    """
    batches = TensorBatches(DesignTable(rows.x, rows.y, torch.arange(len(rows.x))), batch, model.device, seed=0)
    loader = DataLoader(TensorDataset(rows.x, rows.y), batch_size=batch, shuffle=True, drop_last=True)
    fast = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    slow = torch.optim.AdamW(model.parameters(), lr=1e-5)
    ways: dict[str, Callable[[Batch], Tensor]] = {model.label: lambda part: model._terms(part)["loss"]}
    if isinstance(model, CINN) and model.trains_in_parts:
        ways = {f"{model.label}, one block": ways[model.label], f"{model.label}, all blocks": lambda part: _whole(model, part)}
    reference = _median(lambda part: plain_loss(model, Batch(*part)), loader, slow, steps)
    return [TrainingRow(name, batch, _median(loss, batches, fast, steps), reference) for name, loss in ways.items()]


def _whole(model: CINN, batch: Batch) -> Float[Tensor, ""]:
    return -model._log_prob(*model._standardized(batch)).mean()


def plain_loss(model: InverseModel, batch: Batch) -> Float[Tensor, ""]:
    """The loss as FrEIA's examples write it: whole passes with their log-determinants, whole matrices of kernels."""
    u, v = model._standardized(batch)
    if isinstance(model, CINN):
        z, log_det = model.network(u[:, model.order], c=[model.features(v)])
        return (0.5 * z.square().sum(dim=1) - log_det).mean() + 0.5 * u.shape[1] * math.log(2 * math.pi)
    assert isinstance(model, INN)
    padding = model.padding_noise * torch.randn(len(u), model.padding)
    y, latent, rest = model.network(torch.cat([u, padding], dim=1))[0].split([model.dy, model.dz, model.padding], dim=1)
    z = torch.randn(len(u), model.dz + model.padding)
    z, noise = z.split([model.dz, model.padding], dim=1)
    sampled = model.network(torch.cat([v, z, model.padding_noise * noise], dim=1), rev=True)[0][:, : u.shape[1]]
    weights = model.weights
    loss = weights["y"] * (y - v).square().sum(dim=1).mean()
    loss = loss + weights["z"] * _plain_mmd(torch.cat([y.detach(), latent], dim=1), torch.cat([v, z], dim=1), model.scales)
    loss = loss + weights["x"] * _plain_mmd(sampled, u, model.scales)
    return loss + weights["padding"] * rest.square().sum(dim=1).mean() if model.padding else loss


def _plain_mmd(p: Float[Tensor, "n d"], q: Float[Tensor, "m d"], scales: Iterable[float]) -> Float[Tensor, ""]:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squared = (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)
        return torch.stack([1 / (1 + squared / scale**2) for scale in scales]).sum(dim=0).mean()

    return kernel(p, p) + kernel(q, q) - 2 * kernel(p, q)


def _median(loss: Callable[[Batch], Tensor], batches: Iterable[Batch], optimizer: torch.optim.Optimizer, steps: int) -> float:
    seconds: list[float] = []
    start = time.perf_counter()
    while len(seconds) <= steps:  # the first fills caches
        for batch in batches:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
    return statistics.median(seconds[1:])
