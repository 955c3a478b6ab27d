"""Comparison of samples with the posterior p(x | y) that rejection sampling gives."""

from __future__ import annotations

__all__ = ["PosteriorRow", "c2st", "expected_coverage", "nearest_rows", "posterior_rows"]

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.benchmark.rejection import reject
from matdesinne.data.table import DesignTable
from matdesinne.errors import EmptyResultError
from matdesinne.models.base import DensityModel, InverseModel
from matdesinne.models.mmd import SCALES, mmd
from matdesinne.pipeline import Refinement
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target

_COPY = 1e-3  # a candidate nearer to a training row than this (half-widths of the box) is a copy of it

_FEWEST_POINTS = 20


@dataclass(frozen=True)
class PosteriorRow:
    """One method at one target."""

    method: str  # label of the model, with the prefix MatDesINNe for localized candidates
    target: float
    seed: int
    samples: int  # compared candidates
    references: int  # compared designs of the reference posterior
    c2st: float | None  # accuracy of a classifier that tells candidates from reference designs: 0.5 at best, 1 at worst
    mmd: float | None  # unbiased squared maximum mean discrepancy, coordinates scaled by the box, kernels as in `models.mmd`
    nearest: float  # smallest distance of a candidate to a training row, in half-widths of the box
    copies: int  # candidates nearer to a training row than 0.001 half-widths


def posterior_rows(
    models: Mapping[str, InverseModel],
    refinement: Refinement,
    train: DesignTable,
    targets: Sequence[float],
    *,
    count: int,
    tolerance: float,
    limit: int,
    seed: int,
) -> Iterator[PosteriorRow]:
    """Compare every model, before and after localization, with the reference posterior at every target.

    Args:
        models: generative models by their label.
        refinement: its surrogate defines the reference posterior.
        train: training rows, to look for copies.
        targets: values of the property.
        count: candidates and reference designs to compare.
        tolerance: largest distance of a reference design to the target, in the unit of the property.
        limit: largest number of designs to draw for the reference posterior.
        seed: of every draw.
    """
    surrogate = refinement.surrogate
    parsed = [Target.parse(value, surrogate.properties) for value in targets]
    references = reject(surrogate, parsed, tolerance, count, limit, torch.Generator().manual_seed(seed + 1))
    centre, unit = surrogate.scale.mean, surrogate.scale.std
    training_rows = (train.x - centre) / unit
    for label, model in models.items():
        for value, target, rejection in zip(targets, parsed, references, strict=True):
            designs, _ = model.sample_target(target, count, torch.Generator().manual_seed(seed))
            candidates = {label: designs}
            with contextlib.suppress(EmptyResultError):
                candidates[f"MatDesINNe-{label}"] = refinement.refine(designs, target).candidates.designs
            reference = (rejection.designs - centre) / unit
            for method, designs in candidates.items():
                scaled = (designs - centre) / unit
                nearest = nearest_rows(scaled, training_rows)
                yield PosteriorRow(
                    method=method,
                    target=value,
                    seed=seed,
                    samples=len(scaled),
                    references=len(reference),
                    c2st=c2st(scaled, reference, seed),
                    mmd=mmd(scaled, reference, SCALES, unbiased=True).item() if min(len(scaled), len(reference)) > 1 else None,
                    nearest=nearest.min().item(),
                    copies=int((nearest < _COPY).sum()),
                )


def c2st(p: Float[Tensor, "n d"], q: Float[Tensor, "m d"], seed: int = 0, folds: int = 5) -> float | None:
    """Returns the accuracy of a neural network that tells two samples apart, by cross-validation; 0.5 if they are alike.

    The samples are of about unit scale; of the larger one as many points are used as the smaller one has. The result is
    ``None`` if one of them has fewer than 20 finite points.

    References:
        Lopez-Paz and Oquab, Revisiting classifier two-sample tests, ICLR 2017, arXiv 1610.06545.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    p, q = p[p.isfinite().all(dim=1)], q[q.isfinite().all(dim=1)]
    n = min(len(p), len(q))
    if n < _FEWEST_POINTS:
        return None
    x = torch.cat([p[:n], q[:n]]).double().numpy()
    label = np.repeat([0, 1], n)
    width = 10 * x.shape[1]
    network = MLPClassifier((width, width), early_stopping=True, n_iter_no_change=20, max_iter=300, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(network, x, label, cv=StratifiedKFold(folds, shuffle=True, random_state=seed))
    return float(scores.mean())


def nearest_rows(p: Float[Tensor, "n d"], q: Float[Tensor, "m d"]) -> Float[Tensor, " n"]:
    """Returns the distance of each point of p to the nearest point of q."""
    exact = "donot_use_mm_for_euclid_dist"  # a matrix product rounds away the distance of a near copy
    return torch.cat([torch.cdist(rows, q, compute_mode=exact).amin(dim=1) for rows in p.split(2048)])


def expected_coverage(
    model: DensityModel, surrogate: Surrogate, levels: Sequence[float], *, count: int, samples: int, generator: torch.Generator
) -> dict[float, float]:
    r"""Returns the share of designs inside the model's highest-density regions; it equals the level if the density is right.

    For a design x of the prior and :math:`y = f(x)` plus the noise of training, the rank of log p(x|y) among the log-densities
    of samples of p(.|y) is uniform. The samples are drawn without truncation, because `log_prob` is the trained density, which
    is not truncated.

    References:
        Hermans et al., A crisis in simulation-based inference?, TMLR 2022, arXiv 2110.06581, eq. 6.

    Args:
        model: has the density.
        surrogate: predicts y of a design.
        levels: probabilities of the regions.
        count: designs, uniform among those of the box above the property's floor.
        samples: for the rank of each design.
        generator: source of randomness.
    """
    x = _above_floor(surrogate, count, generator)
    y = model.add_target_noise(surrogate.predict_many(x)[0], generator)
    with torch.no_grad():
        density = model.log_prob(x, y)
        repeated = y.repeat_interleave(samples, dim=0)
        drawn = model.sample(repeated, generator, truncate=False)
        of_samples = torch.cat([model.log_prob(a, b) for a, b in zip(drawn.split(8192), repeated.split(8192), strict=True)])
    denser = (of_samples.reshape(count, samples) > density.unsqueeze(1)).float().mean(dim=1)
    return {level: (denser <= level).float().mean().item() for level in levels}


def _above_floor(surrogate: Surrogate, count: int, generator: torch.Generator) -> Float[Tensor, "n dx"]:
    """Uniform designs above the floor; a model does not distinguish values of y below it."""
    floors = torch.tensor([-torch.inf if prop.floor is None else prop.floor for prop in surrogate.properties])
    above = torch.empty(0, surrogate.space.dimension)
    while len(above) < count:
        designs = surrogate.space.sample(4096, generator)
        above = torch.cat([above, designs[(surrogate.predict_many(designs)[0] > floors).all(dim=1)]])
    return above[:count]
