"""Samples for tasks of simulation-based inference, compared with their exact posteriors."""

from __future__ import annotations

__all__ = ["SimulatedRow", "sbi_c2st", "simulated_rows"]

import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from matdesinne.models.base import InverseModel
from matdesinne.oracles.simulators import Simulator

_SEED = 1_000_000  # of the observations and their posteriors: the same in every repetition, and none of the training rows


@dataclass(frozen=True)
class SimulatedRow:
    """One method at one observation."""

    method: str  # label of the model
    observation: int  # its number; it is simulated for a design of the prior
    seed: int
    samples: int  # of the model, and of the exact posterior
    c2st: float  # accuracy of a classifier that tells both apart, as in the benchmark: 0.5 at best, 1 at worst
    seconds_sampling: float  # wall time of the model's samples
    seconds_training: float | None  # wall time, where it is known


def simulated_rows(
    models: Mapping[str, InverseModel],
    simulator: Simulator,
    seconds: Mapping[str, float],
    *,
    observations: int,
    count: int,
    truncate: bool,
    seed: int,
) -> Iterator[SimulatedRow]:
    """Compare every model with the exact posterior of every observation.

    Args:
        models: generative models by their label.
        simulator: the task.
        seconds: of the training of each model.
        observations: how many to draw; they do not depend on the seed.
        count: samples of the model and of the posterior.
        truncate: see `InverseModel.sample`.
        seed: of the models' samples.
    """
    generator = torch.Generator().manual_seed(_SEED)
    seen = simulator.simulate(simulator.sample_prior(observations, generator), generator)
    posteriors = [simulator.sample_posterior(y, count, generator) for y in seen]
    progress = tqdm(total=len(models) * observations, desc="Comparing posteriors", leave=False)
    for label, model in models.items():
        own = torch.Generator().manual_seed(seed)
        for number, (y, reference) in enumerate(zip(seen, posteriors, strict=True), start=1):
            start = time.perf_counter()
            samples = model.sample(y.expand(count, -1), own, truncate)
            taken = time.perf_counter() - start
            score = sbi_c2st(reference, samples)
            progress.update()
            yield SimulatedRow(label, number, seed, count, score, taken, seconds.get(label))
    progress.close()


def sbi_c2st(reference: Float[Tensor, "n d"], samples: Float[Tensor, "n d"], seed: int = 1, folds: int = 5) -> float:
    """Returns the accuracy of a classifier that tells two samples apart, as the benchmark of simulation-based inference does.

    Both samples are scaled by mean and standard deviation of the reference; the network has two hidden layers of 10 units for
    each parameter and trains until its loss stops falling. `matdesinne.benchmark.posterior.c2st` stops it early instead.

    References:
        Lueckmann et al., Benchmarking simulation-based inference, AISTATS 2021, arXiv 2101.04653; its package sbibm.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    mean, std = reference.mean(dim=0), reference.std(dim=0)
    x = ((torch.cat([reference, samples]) - mean) / std).double().numpy()
    label = np.repeat([0, 1], [len(reference), len(samples)])
    width = 10 * x.shape[1]
    network = MLPClassifier((width, width), max_iter=1000, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(network, x, label, cv=KFold(folds, shuffle=True, random_state=seed), scoring="accuracy")
    return float(scores.mean())
