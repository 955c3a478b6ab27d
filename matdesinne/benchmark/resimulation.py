"""Samples for an analytic problem, compared with its exact forward function and its exact posterior."""

from __future__ import annotations

__all__ = ["Resimulation", "rejection_posteriors", "resimulate"]

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from matdesinne.models.base import InverseModel
from matdesinne.models.mmd import SCALES, mmd
from matdesinne.oracles.analytic import AnalyticProblem

_CHUNK_ROWS = 1_000_000


@dataclass(frozen=True)
class Resimulation:
    """Errors of samples, in the units of designs and properties.

    ``err_post`` is the mean of the unbiased MMD^2 between samples and rejection posterior, over targets whose posterior has at
    least two designs; ``err_resim`` the mean over targets and samples of the squared distance of f(x) to y*, summed over the
    properties, and ``None`` if no sample has a forward value.
    """

    err_post: float | None
    err_resim: float | None
    median_err_resim: float | None  # median over targets of the mean over their samples
    targets: int
    samples: int  # for each target
    failed: int  # samples without a forward value, which err_resim leaves out
    fewest_references: int  # size of the smallest rejection posterior


def resimulate(
    model: InverseModel,
    problem: AnalyticProblem,
    targets: Float[Tensor, "t dy"],
    posteriors: Sequence[Float[Tensor, "r dx"]],
    samples: int,
    generator: torch.Generator,
    truncate: bool = True,
) -> Resimulation:
    r"""Sample designs for each target; evaluate the exact forward function; compare with the exact posterior.

    The kernel of the MMD is :math:`\sum_h 1 / (1 + d^2 / h^2)`, h in {0.05, 0.2, 0.9}.

    References:
        Kruse et al., Benchmarking invertible architectures on inverse problems, 2021, arXiv 2101.10763.

    Args:
        model: trained on the problem.
        problem: gives the exact properties.
        targets: forward values of prior designs.
        posteriors: designs of the exact posterior of each target.
        samples: designs for each target.
        generator: source of randomness.
        truncate: see `InverseModel.sample`.
    """
    errors, distances, failed = [], [], 0
    pairs = tqdm(zip(targets.split(1), posteriors, strict=True), desc="Re-simulating", total=len(targets), leave=False)
    for y, reference in pairs:
        x = model.sample(y.expand(samples, -1), generator, truncate)
        if len(reference) > 1:
            distances.append(mmd(x, reference, SCALES, unbiased=True))
        squared = (problem.forward(x, strict=False) - y).square().sum(dim=1)
        failed += int((~squared.isfinite()).sum())
        errors.append(squared[squared.isfinite()])
    per_target = [error.mean() for error in errors if len(error)]
    return Resimulation(
        err_post=torch.stack(distances).mean().item() if distances else None,
        err_resim=torch.cat(errors).mean().item() if per_target else None,
        median_err_resim=torch.stack(per_target).median().item() if per_target else None,
        targets=len(targets),
        samples=samples,
        failed=failed,
        fewest_references=min(map(len, posteriors)),
    )


def rejection_posteriors(
    problem: AnalyticProblem, targets: Float[Tensor, "t dy"], count: int, limit: int, generator: torch.Generator
) -> list[Float[Tensor, "r dx"]]:
    """Returns, for each target, prior designs whose properties are within the problem's tolerance (Euclidean) of it.

    All targets share the drawn designs, at most `limit`; for a rare target there may be fewer designs than `count`.
    """
    posteriors: list[list[Tensor]] = [[] for _ in targets]
    missing = [count] * len(targets)
    progress = tqdm(total=limit, desc="Rejection posteriors", unit="design", unit_scale=True, leave=False)
    for start in range(0, limit, _CHUNK_ROWS):
        if max(missing) <= 0:
            break
        x = problem.sample_prior(min(_CHUNK_ROWS, limit - start), generator)
        y = problem.forward(x)
        order = y[:, 0].argsort()
        x, y = x[order], y[order]
        # the first property gives a window of the sorted designs; the distance is computed within it only
        low = torch.searchsorted(y[:, 0].contiguous(), targets[:, 0].contiguous() - problem.tolerance).tolist()
        high = torch.searchsorted(y[:, 0].contiguous(), targets[:, 0].contiguous() + problem.tolerance).tolist()
        for i, target in enumerate(targets):
            if missing[i] > 0:
                window = slice(low[i], high[i])
                near = x[window][(y[window] - target).norm(dim=1) < problem.tolerance]
                if len(near) > missing[i]:  # a random choice, because the window is sorted by the first property
                    near = near[torch.randperm(len(near), generator=generator)[: missing[i]]]
                posteriors[i].append(near)
                missing[i] -= len(near)
        progress.update(len(x))
    progress.close()
    return [torch.cat(designs) for designs in posteriors]
