"""The suites that repeat the paper's own evaluation: of its public weights, and of networks trained with its settings."""

from __future__ import annotations

__all__ = ["paper", "published"]

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, cast

from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from matdesinne.benchmark.marginal import MarginalGaussian
from matdesinne.benchmark.paper_report import write_paper_report
from matdesinne.benchmark.paper_table import PaperRow, PaperTable
from matdesinne.benchmark.parallel import Trainings
from matdesinne.benchmark.preparation import train_models
from matdesinne.benchmark.public_weights import load_public
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.errors import ConfigError
from matdesinne.models.base import InverseModel
from matdesinne.network import DesignNetwork
from matdesinne.surrogates.base import Surrogate
from matdesinne.training.build import build_module, check_device
from matdesinne.training.runs import trained_surrogate

N = TypeVar("N", bound=DesignNetwork)


def published(config: DictConfig, models: dict[str, DictConfig], folder: Path, data_name: str) -> str:
    """Score the public weights by their own forward INN."""
    data: DesignDataModule = instantiate(config.published.data, _convert_="all")
    forward = _public_network(config, data, "forward", Surrogate)
    names = [name for name in config.published.networks if name != "forward"]
    inverse: list[InverseModel] = [_public_network(config, data, name, InverseModel) for name in names]
    inverse.append(MarginalGaussian(data.space, data.properties))
    for model in inverse:
        model.fit_scales(data.training_batch())  # of a published one the range of the targets alone: it has no scales
    networks = {model.label: model for model in inverse}
    rows = _rows(config, networks, forward)
    return write_paper_report(folder, "published", rows, {"forward_inn": _forward_errors(forward, data)})


def paper(config: DictConfig, models: dict[str, DictConfig], folder: Path, data_name: str) -> str:
    """Train every model with the published settings and score it by a forward INN, once for each seed."""
    rows: list[PaperRow] = []
    facts: dict[str, object] = {}
    for seed in range(config.seed, config.seed + config.repeats):
        part = copy.deepcopy(config)
        part.seed = seed
        data: DesignDataModule = instantiate(part.data, _convert_="all")
        forward = _forward_inn(part, data)
        with Trainings(part.workers) as trainings:
            networks, seconds = train_models(part, models, data, folder / f"seed{seed}", trainings)
        rows += _rows(part, networks, forward)
        facts[f"seed{seed}"] = {"seconds_training": seconds, "forward_inn": _forward_errors(forward, data)}
    return write_paper_report(folder, "paper", rows, facts)


def _forward_inn(config: DictConfig, data: DesignDataModule) -> Surrogate:
    """The public one, or one that the settings under ``surrogate`` give."""
    if config.published.forward == "public":
        return _public_network(config, data, "forward", Surrogate)
    if config.published.forward == "trained":
        return trained_surrogate(config, data)
    raise ConfigError(f"Expected published.forward as public or trained, got {config.published.forward!r}: choose one.")


def _public_network(config: DictConfig, data: DesignDataModule, name: str, kind: Callable[..., N]) -> N:
    """A network of the published settings with the public weights."""
    network: DesignNetwork = build_module(config.published.networks[name], data).network
    assert isinstance(kind, type)
    if not isinstance(network, kind):
        raise ConfigError(
            f"Expected the settings of a {kind.__name__} for {name}, got a {type(network).__name__}: correct them."
        )
    return cast(N, load_public(name, network, instantiate(config.published.weights)))


def _rows(config: DictConfig, networks: Mapping[str, InverseModel], forward: Surrogate) -> list[PaperRow]:
    device = check_device(config.trainer)
    settings = config.published
    table = PaperTable(
        {label: network.to(device) for label, network in networks.items()},
        forward.to(device),
        num_samples=config.num_samples,
        localized=settings.localized,
        tolerances=settings.tolerances,
        steps=settings.steps,
        seed=config.seed,
    )
    return list(tqdm(table.rows(settings.targets), desc=f"The paper's evaluation, seed {config.seed}", unit="row"))


def _forward_errors(forward: Surrogate, data: DesignDataModule) -> dict[str, float]:
    """Mean absolute errors of the forward INN on the rows of the published set, in the unit of the property."""
    parts = {"test_rows": data.split.test, "training_rows": data.split.train}
    errors = {name: (forward.predict_many(part.x)[0] - part.y).abs() for name, part in parts.items()}
    every = sum(float(error.sum()) for error in errors.values()) / sum(len(error) for error in errors.values())
    return {**{f"mae_{name}": float(error.mean()) for name, error in errors.items()}, "mae_all_rows": every}
