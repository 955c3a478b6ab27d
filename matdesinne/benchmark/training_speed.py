"""Times of a training step against the same network trained as FrEIA's examples do it, with a loader of single rows."""

from __future__ import annotations

__all__ = ["PLAIN_LOSSES", "TrainingRow", "training_rows"]

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from matdesinne.data.batches import TensorBatches
from matdesinne.data.table import DesignTable
from matdesinne.network import Batch

Loss = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class TrainingRow:
    """Median wall times in seconds of a training step on the CPU: batch, loss, gradient and optimizer."""

    model: str  # label of the generative model, and what a step trains of it
    batch: int  # rows of a step
    step: float  # our step
    reference: float  # the straightforward step


def training_rows(name: str, module: Any, rows: Batch, batch: int, steps: int) -> list[TrainingRow]:
    """Time both ways of training a model on the same rows; this changes its weights.

    A step of the mixture cINN trains one of its blocks; a second row times a step of the whole likelihood.

    Args:
        name: key of `PLAIN_LOSSES`.
        module: the LightningModule of that model, whose network has fitted scales.
        rows: at least two batches of them.
        batch: rows of a step.
        steps: to time.
    """
    network = module.network
    batches = TensorBatches(DesignTable(rows.x, rows.y, torch.arange(len(rows.x))), batch, network.device, seed=0)
    loader = DataLoader(TensorDataset(rows.x, rows.y), batch_size=batch, shuffle=True, drop_last=True)

    def objective(part: Batch) -> Tensor:
        terms = module.losses(part)
        return terms.get("objective", terms["loss"])

    losses: dict[str, Loss] = {network.label: objective}
    if name == "cinn":
        losses = {
            f"{network.label}, one block": objective,
            f"{network.label}, all blocks": lambda part: -network.standard_log_prob(*_standardized(network, part)).mean(),
        }
    slow = torch.optim.AdamW(network.parameters(), lr=1e-5)
    reference = _median_seconds(lambda part: PLAIN_LOSSES[name](module, Batch(*part)), loader, slow, steps)
    fast = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    return [TrainingRow(label, batch, _median_seconds(loss, batches, fast, steps), reference) for label, loss in losses.items()]


def _standardized(network: Any, batch: Batch) -> tuple[Float[Tensor, "n dx"], Float[Tensor, "n dy"]]:
    return network.standardize(batch.x, network.add_target_noise(batch.y))


def _plain_likelihood(module: Any, batch: Batch) -> Float[Tensor, ""]:
    """Negative log-likelihood by a whole pass and its log-determinant."""
    network = module.network
    u, v = _standardized(network, batch)
    z, log_det = network.network(u[:, network.order], c=[network.features(v)])
    return (0.5 * z.square().sum(dim=1) - log_det).mean() + 0.5 * u.shape[1] * math.log(2 * math.pi)


def _plain_discrepancies(module: Any, batch: Batch) -> Float[Tensor, ""]:
    """Loss of the INN by whole passes with their log-determinants and whole matrices of kernels."""
    network = module.network
    u, v = _standardized(network, batch)
    padding = network.padding_noise * torch.randn(len(u), network.padding)
    sizes = [network.dy, network.dz, network.padding]
    y, latent, rest = network.network(torch.cat([u, padding], dim=1))[0].split(sizes, dim=1)
    z, noise = torch.randn(len(u), network.dz + network.padding).split(sizes[1:], dim=1)
    sampled = network.network(torch.cat([v, z, network.padding_noise * noise], dim=1), rev=True)[0][:, : u.shape[1]]
    loss = module.lambda_y * (y - v).square().sum(dim=1).mean()
    loss = loss + module.lambda_z * _plain_mmd(torch.cat([y.detach(), latent], dim=1), torch.cat([v, z], dim=1), module.scales)
    loss = loss + module.lambda_x * _plain_mmd(sampled, u, module.scales)
    return loss + module.lambda_padding * rest.square().sum(dim=1).mean() if network.padding else loss


PLAIN_LOSSES: Mapping[str, Callable[[Any, Batch], Tensor]] = {"cinn": _plain_likelihood, "inn": _plain_discrepancies}
"""The straightforward loss of a LightningModule on a batch, by the name of the model's configuration."""


def _plain_mmd(p: Float[Tensor, "n d"], q: Float[Tensor, "m d"], scales: Iterable[float]) -> Float[Tensor, ""]:
    """What `matdesinne.models.mmd.mmd` computes, without its chunks and its own gradient."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squared = (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)
        return torch.stack([1 / (1 + squared / scale**2) for scale in scales]).sum(dim=0).mean()

    return kernel(p, p) + kernel(q, q) - 2 * kernel(p, q)


def _median_seconds(loss: Loss, batches: Iterable[Batch], optimizer: torch.optim.Optimizer, steps: int) -> float:
    seconds: list[float] = []
    start = time.perf_counter()
    while len(seconds) <= steps:  # the first step fills caches and does not count
        for batch in batches:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
    return statistics.median(seconds[1:])
