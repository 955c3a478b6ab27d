"""Is it the posterior, and not only on target? Samples against a reference posterior drawn by rejection."""

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

_COPY = 1e-3
"""A candidate nearer to a training row than this (box half-widths) would be a copy of it."""

_FEWEST_POINTS = 20


@dataclass(frozen=True)
class PosteriorRow:
    """One method at one target.

    Args:
        method: as the paper names it.
        target: the wanted value.
        seed: of this run.
        samples: candidates compared.
        references: designs of the reference posterior compared.
        c2st: accuracy of a classifier that tells candidates from reference designs; 0.5 is perfect, 1 the worst.
        mmd: unbiased squared maximum mean discrepancy, coordinates scaled by the box, kernels as in `models.mmd`.
        nearest: smallest distance of a candidate to a training row, in half-widths of the box.
        copies: candidates nearer to a training row than 0.001 half-widths.
    """

    method: str
    target: float
    seed: int
    samples: int
    references: int
    c2st: float | None
    mmd: float | None
    nearest: float
    copies: int


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
        models: generative models by the name of their method.
        refinement: its surrogate defines the reference posterior.
        train: training rows, to look for copies.
        targets: values of the property.
        count: candidates and reference designs to compare.
        tolerance: of the rejection, in the unit of the property.
        limit: designs drawn for the rejection at most.
        seed: of every draw.
    """
    surrogate = refinement.surrogate
    wanted = [Target.parse(value, surrogate.properties) for value in targets]
    references = reject(surrogate, wanted, tolerance, count, limit, torch.Generator().manual_seed(seed + 1))
    centre, unit = surrogate.scale.mean, surrogate.scale.std
    for name, model in models.items():
        for value, target, reference in zip(targets, wanted, references, strict=True):
            generator = torch.Generator().manual_seed(seed)
            designs, _ = model.sample_target(target, count, generator)
            found = {name: designs}
            with contextlib.suppress(EmptyResultError):
                found[f"MatDesINNe-{name}"] = refinement.refine(designs, target).candidates.designs
            for method, chosen in found.items():
                scaled, known = (chosen - centre) / unit, (reference.designs - centre) / unit
                nearest = nearest_rows(scaled, (train.x - centre) / unit)
                yield PosteriorRow(
                    method,
                    value,
                    seed,
                    len(scaled),
                    len(known),
                    c2st(scaled, known, seed),
                    mmd(scaled, known, SCALES, unbiased=True).item() if min(len(scaled), len(known)) > 1 else None,
                    nearest.min().item(),
                    int((nearest < _COPY).sum()),
                )


def c2st(p: Float[Tensor, "n d"], q: Float[Tensor, "m d"], seed: int = 0, canonicalizes: int = 5) -> float | None:
    """Accuracy of a neural network that tells two samples apart, by cross-validation; 0.5 where it cannot.

    ``None`` with fewer than 20 finite points in one of them.

    References:
        Lopez-Paz and Oquab, Revisiting classifier two-sample tests, ICLR 2017, arXiv 1610.06545.

    Args:
        p: one sample, shape [n, d], of about unit scale.
        q: the other; the larger of the two is cut, so that both weigh the same.
        seed: of the canonicalizes and of the network.
        canonicalizes: of the cross-validation.
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
        scores = cross_val_score(network, x, label, cv=StratifiedKFold(canonicalizes, shuffle=True, random_state=seed))
    return float(scores.mean())


def nearest_rows(p: Float[Tensor, "n d"], q: Float[Tensor, "m d"]) -> Float[Tensor, " n"]:
    """Distance of each point of p to the nearest of q."""
    exact = "donot_use_mm_for_euclid_dist"  # a matrix product would lose the digits of a near copy
    return torch.cat([torch.cdist(rows, q, compute_mode=exact).amin(dim=1) for rows in p.split(2048)])


def expected_coverage(
    model: DensityModel,
    surrogate: Surrogate,
    levels: Sequence[float],
    *,
    count: int,
    samples: int,
    generator: torch.Generator,
) -> dict[float, float]:
    r"""Share of designs inside the model's own highest-density regions; equal to the level where the density is right.

    For a design x of the prior and :math:`y = f(x)` plus the noise of training, the rank of log p(x|y) among the log-densities
    of samples of p(.|y) is uniform.

    References:
        Hermans et al., A crisis in simulation-based inference?, TMLR 2022, arXiv 2110.06581, eq. 6.

    Args:
        model: a density model.
        surrogate: gives y of a design.
        levels: contents of the regions.
        count: number of designs, uniform in the box among those above the property's floor.
        samples: samples for the rank of each.
        generator: source of randomness.
    """
    x = _above_floor(surrogate, count, generator)
    y = model.add_target_noise(surrogate.predict_many(x)[0], generator)
    with torch.no_grad():
        own = model.log_prob(x, y)
        repeated = y.repeat_interleave(samples, dim=0)
        drawn = model.sample(repeated, generator)
        others = torch.cat([model.log_prob(a, b) for a, b in zip(drawn.split(8192), repeated.split(8192), strict=True)])
    denser = (others.reshape(count, samples) > own.unsqueeze(1)).float().mean(dim=1)
    return {level: (denser <= level).float().mean().item() for level in levels}


def _above_floor(surrogate: Surrogate, count: int, generator: torch.Generator) -> Float[Tensor, "n dx"]:
    """Uniform designs above the floor: below it a model has merged the values of y."""
    floors = torch.tensor([-torch.inf if prop.floor is None else prop.floor for prop in surrogate.properties])
    kept, found = [], 0
    while found < count:
        designs = surrogate.space.sample(4096, generator)
        kept.append(designs[(surrogate.predict_many(designs)[0] > floors).all(dim=1)])
        found += len(kept[-1])
    return torch.cat(kept)[:count]
