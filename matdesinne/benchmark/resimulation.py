"""Do the samples of an analytic problem have the properties that were asked for? Exact, by its forward function."""

from __future__ import annotations

__all__ = ["Resimulation", "resimulate"]

from dataclasses import dataclass

import torch
from tqdm import tqdm

from matdesinne.errors import DatasetError
from matdesinne.models.base import InverseModel
from matdesinne.oracles.analytic import AnalyticProblem


@dataclass(frozen=True)
class Resimulation:
    """Errors of re-simulated samples, in the squared unit of the properties.

    Args:
        mean_squared_error: mean over targets and samples of |f(x) - y*|^2, summed over the properties.
        median_squared_error: median over targets of their mean squared error.
        targets: number of targets.
        samples: samples for each target.
        failed: samples without a forward value (they are not in the errors).
    """

    mean_squared_error: float
    median_squared_error: float
    targets: int
    samples: int
    failed: int


def resimulate(
    model: InverseModel, problem: AnalyticProblem, targets: int, samples: int, generator: torch.Generator
) -> Resimulation:
    """Sample designs for targets of the prior and evaluate the exact forward function on them.

    References:
        Kruse et al., Benchmarking invertible architectures on inverse problems, 2021, arXiv 2101.10763.

    Args:
        model: a trained generative model.
        problem: gives targets and the exact properties.
        targets: number of targets, forward values of prior designs.
        samples: designs for each target.
        generator: source of randomness.
    """
    wanted = problem.forward(problem.sample_prior(targets, generator))
    errors, failed = [], 0
    for y in tqdm(wanted.split(1), desc="Re-simulating", unit="target", leave=False):
        x = model.sample(y.expand(samples, -1), generator)
        try:
            found = problem.forward(x)
        except DatasetError:
            rows = [_forward_or_nan(problem, row) for row in x.split(1)]
            found = torch.cat(rows)
        squared = (found - y).square().sum(dim=1)
        failed += int((~squared.isfinite()).sum())
        errors.append(squared[squared.isfinite()])
    per_target = torch.tensor([error.mean().item() for error in errors if len(error)])
    return Resimulation(torch.cat(errors).mean().item(), per_target.median().item(), targets, samples, failed)


def _forward_or_nan(problem: AnalyticProblem, x: torch.Tensor) -> torch.Tensor:
    try:
        return problem.forward(x)
    except DatasetError:
        return torch.full((1, 1), torch.nan)
