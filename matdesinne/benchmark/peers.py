"""Our models beside those of sbi: the same rows, the same time of training, the same scores."""

from __future__ import annotations

__all__ = ["peers"]

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from matdesinne.benchmark.metrics import mean_target_error
from matdesinne.benchmark.parallel import Trainings
from matdesinne.benchmark.peers_report import PeerRow, write_peers
from matdesinne.benchmark.preparation import repetitions, train_models
from matdesinne.benchmark.resimulation import rejection_posteriors, resimulate
from matdesinne.benchmark.simulated import simulated_rows
from matdesinne.files import atomic_path, read_json, write_json
from matdesinne.models.base import InverseModel
from matdesinne.oracles.analytic import AnalyticProblem
from matdesinne.oracles.simulators import Simulator
from matdesinne.pipeline import InverseDesign
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target
from matdesinne.training.sweeps import read_metrics

_SEED = 1_000_000  # of targets and reference designs: the same in every repetition, and none of the training rows
_TIMED = 10_000  # samples whose time is taken

Scores = dict[str, float]
Score = Callable[[InverseModel, bool], Scores]
"""What is asked of a model, without or with the far tails of its samples: numbers by their names, all better when smaller."""


def peers(config: DictConfig, models: Mapping[str, DictConfig], folder: Path, data_name: str) -> str:
    """Train every model on every task for the same CPU time, once for each seed, and score it.

    A finished part, one model on one task with one seed, is kept in a file of its own, from which a run that was ended goes on.
    """
    words = HydraConfig.get().overrides.task
    asked = [word for word in words if word.startswith("data=")]
    rows: list[PeerRow] = []
    text = ""
    for task in [data_name] if asked else config.peers.tasks:
        composed = compose("benchmark", [*(word for word in words if word not in asked), f"data={task}"])
        for part, place in repetitions(composed, folder):
            for new in _parts(part, models, place / task, task):
                rows += new
                text = write_peers(folder, rows, config.peers.seconds)
    return text


def _parts(config: DictConfig, models: Mapping[str, DictConfig], folder: Path, task: str) -> Iterator[list[PeerRow]]:
    """The rows of each model on one task with one seed."""
    config.callbacks = {"time_limit": {"_target_": "matdesinne.training.time_limit.TimeLimit", "seconds": config.peers.seconds}}
    parts = {"peers": config.peers, "data": config.data, "targets": config.targets}
    common = {name: cast(Any, OmegaConf.to_container(part, resolve=True)) for name, part in parts.items()}
    common["peers"] = {name: value for name, value in common["peers"].items() if name not in ("tasks", "models")}
    settings = {name: {**common, "model": OmegaConf.to_container(model)} for name, model in models.items()}
    kept = {name: cast(Any, read_json(folder / f"{name}.json")) for name in models}
    missing = {name for name in models if not kept[name] or kept[name]["settings"] != settings[name]}
    if missing:
        untrained = {name: model for name, model in models.items() if name in missing}
        trained, score = _prepared(config, untrained, folder)
    for name in models:
        if name in missing:
            new = list(_rows(*trained[name], score, read_metrics(folder / name), {"data": task, "seed": config.seed}))
            write_json(folder / f"{name}.json", {"settings": settings[name], "rows": [asdict(row) for row in new]})
            yield new
        else:
            yield [PeerRow(**row) for row in kept[name]["rows"]]


def _prepared(
    config: DictConfig, models: Mapping[str, DictConfig], folder: Path
) -> tuple[dict[str, tuple[InverseModel, Tensor]], Score]:
    """Train the models; each, by its name, with the properties of a training row; and what scores them."""
    data = instantiate(config.data, _convert_="all")
    exact = "problem" in config.data.source or "simulator" in config.data.source
    surrogate = None if exact else InverseDesign.load(config.peers.run).surrogate
    limited = {name: copy.deepcopy(model) for name, model in models.items()}
    for model in limited.values():
        model.scheduler = None  # the time limit sets the rate
    with Trainings(config.workers) as trainings:
        networks, _ = train_models(config, limited, data, folder, trainings, surrogate)
    y = data.training_rows.y
    known = y[y.isfinite().all(dim=1)][:1]
    trained = {name: (network, known) for name, network in zip(models, networks.values(), strict=True)}
    if "simulator" in config.data.source:
        return trained, _simulator_score(config, data.source.simulator)
    if "problem" in config.data.source:
        references = folder.parents[1] / f"{folder.name}_posteriors.pt"  # the same for all seeds
        return trained, _problem_score(config, data.source.problem, references)
    assert surrogate is not None
    return trained, _surrogate_score(config, surrogate)


def _rows(
    model: InverseModel, y: Float[Tensor, "1 dy"], score: Score, metrics: Mapping[str, float], part: Mapping[str, Any]
) -> Iterator[PeerRow]:
    for suffix, truncate in {"": False, **({", truncated": True} if model.truncates else {})}.items():
        seconds = _sampling_seconds(model, y, truncate)
        for name, value in score(model, truncate).items():
            yield PeerRow(
                **part,
                method=model.label + suffix,
                score=name,
                value=value,
                seconds_training=metrics["cpu_seconds"],
                seconds_sampling=seconds,
                epochs=int(metrics["epochs"]),
                parameters=int(metrics["parameters"]),
            )


def _sampling_seconds(model: InverseModel, y: Float[Tensor, "1 dy"], truncate: bool) -> float:
    """CPU time of 10,000 samples for one target."""
    generator = torch.Generator().manual_seed(0)
    model.sample(y.expand(100, -1), generator, truncate)  # fills caches
    start = time.process_time()
    model.sample(y.expand(_TIMED, -1), generator, truncate)
    return time.process_time() - start


def _surrogate_score(config: DictConfig, surrogate: Surrogate) -> Score:
    """The mean distance of the surrogate's prediction to each target, before any selection."""
    unit = surrogate.properties[0].unit

    def score(model: InverseModel, truncate: bool) -> Scores:
        errors: Scores = {}
        for value in config.targets:
            target, generator = Target.parse(value, surrogate.properties), torch.Generator().manual_seed(config.seed)
            designs = model.sample(model.draw_targets(target, config.peers.samples, generator), generator, truncate)
            error = mean_target_error(designs, target, surrogate)
            if error is not None:
                errors[f"error at {value:g} {unit} [{unit}]"] = error
        return errors

    return score


def _problem_score(config: DictConfig, problem: AnalyticProblem, references: Path) -> Score:
    """Errors by the exact forward function; the rejection posteriors are kept in a file."""
    settings = config.peers
    sizes = [settings.targets, settings.samples, settings.limit]
    kept = torch.load(references) if references.is_file() else None
    if kept is None or kept["sizes"] != sizes:
        generator = torch.Generator().manual_seed(_SEED)
        targets = problem.forward(problem.sample_prior(settings.targets, generator))
        posteriors = rejection_posteriors(problem, targets, settings.samples, settings.limit, generator)
        kept = {"sizes": sizes, "targets": targets, "posteriors": posteriors}
        with atomic_path(references) as temporary:
            torch.save(kept, temporary)

    def score(model: InverseModel, truncate: bool) -> Scores:
        generator = torch.Generator().manual_seed(config.seed)
        found = resimulate(model, problem, kept["targets"], kept["posteriors"], settings.samples, generator, truncate)
        errors = {"Err_post": found.err_post, "Err_resim": found.err_resim, "Err_resim, median": found.median_err_resim}
        return {name: error for name, error in errors.items() if error is not None}

    return score


def _simulator_score(config: DictConfig, simulator: Simulator) -> Score:
    """C2ST against the exact posterior, mean over the observations."""
    sizes = {"observations": config.peers.observations, "count": config.peers.samples, "seed": config.seed}

    def score(model: InverseModel, truncate: bool) -> Scores:
        rows = simulated_rows({model.label: model}, simulator, {}, **sizes, truncate=truncate)
        return {"C2ST": fmean(row.c2st for row in rows)}

    return score
