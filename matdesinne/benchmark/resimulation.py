"""Samples of an analytic problem against the exact forward function and the exact posterior."""

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
    """How good samples are, in the raw units of designs and properties.

    Args:
        err_post: mean of the unbiased MMD^2 between samples and rejection posterior, over targets with two of the latter.
        err_resim: mean over targets and samples of the squared distance of f(x) to y*, summed over the properties;
            ``None`` if all failed.
        median_err_resim: median over targets of the mean over their samples.
        targets: number of targets.
        samples: samples for each target.
        failed: samples without a forward value (they are not in err_resim).
        fewest_references: size of the smallest rejection posterior.
    """

    err_post: float | None
    err_resim: float | None
    median_err_resim: float | None
    targets: int
    samples: int
    failed: int
    fewest_references: int


def resimulate(
    model: InverseModel,
    problem: AnalyticProblem,
    wanted: Float[Tensor, "t dy"],
    posteriors: Sequence[Float[Tensor, "r dx"]],
    samples: int,
    generator: torch.Generator,
) -> Resimulation:
    r"""Sample designs for each target; evaluate the exact forward function; compare with the exact posterior.

    The kernel of the MMD is :math:`\sum_h 1 / (1 + d^2 / h^2)`, h in {0.05, 0.2, 0.9}.

    References:
        Kruse et al., Benchmarking invertible architectures on inverse problems, 2021, arXiv 2101.10763.

    Args:
        model: a trained generative model.
        problem: gives the exact properties.
        wanted: targets, forward values of prior designs.
        posteriors: designs of the exact posterior of each target.
        samples: designs for each target.
        generator: source of randomness.
    """
    errors, distances, failed = [], [], 0
    pairs = tqdm(zip(wanted.split(1), posteriors, strict=True), desc="Re-simulating", total=len(wanted), leave=False)
    for y, reference in pairs:
        x = model.sample(y.expand(samples, -1), generator)
        if len(reference) > 1:
            distances.append(mmd(x, reference, SCALES, unbiased=True))
        squared = (problem.forward(x, strict=False) - y).square().sum(dim=1)
        failed += int((~squared.isfinite()).sum())
        errors.append(squared[squared.isfinite()])
    per_target = [error.mean() for error in errors if len(error)]
    return Resimulation(
        torch.stack(distances).mean().item() if distances else None,
        torch.cat(errors).mean().item() if per_target else None,
        torch.stack(per_target).median().item() if per_target else None,
        len(wanted),
        samples,
        failed,
        min(map(len, posteriors)),
    )


def rejection_posteriors(
    problem: AnalyticProblem, wanted: Float[Tensor, "t dy"], count: int, limit: int, generator: torch.Generator
) -> list[Float[Tensor, "r dx"]]:
    """Prior designs whose properties are within the problem's tolerance of each target.

    All targets share one stream of draws.

    Args:
        problem: gives prior, forward function and tolerance (Euclidean distance).
        wanted: targets, shape [t, dy].
        count: designs for each target.
        limit: prior designs drawn at most; a rare target gets fewer than `count`.
        generator: source of randomness.
    """
    kept: list[list[Tensor]] = [[] for _ in wanted]
    missing = [count] * len(wanted)
    progress = tqdm(total=limit, desc="Rejection posteriors", unit="design", unit_scale=True, leave=False)
    for start in range(0, limit, _CHUNK_ROWS):
        if max(missing) <= 0:
            break
        x = problem.sample_prior(min(_CHUNK_ROWS, limit - start), generator)
        y = problem.forward(x)
        order = y[:, 0].argsort()
        x, y = x[order], y[order]
        # a window in the first property, then the distance
        low = torch.searchsorted(y[:, 0].contiguous(), wanted[:, 0].contiguous() - problem.tolerance).tolist()
        high = torch.searchsorted(y[:, 0].contiguous(), wanted[:, 0].contiguous() + problem.tolerance).tolist()
        for i, target in enumerate(wanted):
            if missing[i] > 0:
                near = (y[low[i] : high[i]] - target).norm(dim=1) < problem.tolerance
                found = x[low[i] : high[i]][near]
                if len(found) > missing[i]:  # the window is sorted: a random part of it
                    found = found[torch.randperm(len(found), generator=generator)[: missing[i]]]
                kept[i].append(found)
                missing[i] -= len(found)
        progress.update(len(x))
    progress.close()
    return [torch.cat(parts) for parts in kept]
