"""The suites of ``benchmark.py``: each takes a configuration and writes files into a folder."""

from __future__ import annotations

__all__ = ["SUITES"]

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from matdesinne.benchmark.learning_curves import learning_curves
from matdesinne.benchmark.paper_suites import paper, published
from matdesinne.benchmark.parallel import Trainings
from matdesinne.benchmark.peers import peers
from matdesinne.benchmark.posterior import PosteriorRow, expected_coverage, posterior_rows
from matdesinne.benchmark.preparation import prepare, repetitions, train_models
from matdesinne.benchmark.report import records_table, write_posterior, write_report, write_resimulation, write_simulated
from matdesinne.benchmark.resimulation import rejection_posteriors, resimulate
from matdesinne.benchmark.search import SearchRow, search_rows
from matdesinne.benchmark.simulated import SimulatedRow, simulated_rows
from matdesinne.benchmark.speed import Floor, Speed
from matdesinne.benchmark.speed_report import write_speed
from matdesinne.benchmark.table1 import Row, Table1
from matdesinne.benchmark.training_speed import PLAIN_LOSSES, TrainingRow, training_rows
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.errors import ConfigError
from matdesinne.files import write_json, write_text
from matdesinne.localization import Adam, GradientDescent, Newton
from matdesinne.models.base import DensityModel, InverseModel
from matdesinne.network import Batch
from matdesinne.pipeline import InverseDesign, Refinement
from matdesinne.surrogates.base import Surrogate
from matdesinne.training.build import build_module, check_device

_DRAW = 1_000_000  # added to the seed of targets and reference designs, which must not be rows of the analytic source

Models = dict[str, DictConfig]


def table1(config: DictConfig, models: Models, folder: Path, data_name: str) -> str:
    """Table 1 of the paper: train, generate and score every model, once for each seed."""
    rows: list[Row] = []
    facts: dict[str, object] = {}
    text = ""
    for part, place in repetitions(config, folder):
        ready = prepare(part, models, place, evaluate=True).to(check_device(part.trainer))
        assert ready.evaluator is not None  # because of evaluate=True
        table = Table1(
            models=ready.models,
            training_seconds=ready.training_seconds,
            refinement=_refinement(part, ready.surrogate, ready.accurate_surrogate),
            evaluator=ready.evaluator,
            reference=ready.data.split.train,
            **{name: part[name] for name in ("seconds_per_label", "num_samples", "evaluated", "seed", "baselines")},
        )
        rows += tqdm(table.rows(part.targets), desc=f"Table 1, seed {part.seed}", unit="row")
        facts[place.name] = ready.facts()
        text = write_report(folder, data_name, table.surrogate.properties[0].unit, rows, facts)
    return text


def posterior(config: DictConfig, models: Models, folder: Path, data_name: str) -> str:
    """Compare samples with the posterior: C2ST, MMD, copies of training rows; expected coverage of densities.

    The posterior is that of rejection sampling with the surrogate, and the exact one for a task with a simulator.
    """
    if "simulator" in config.data.source:
        return _simulated(config, models, folder, data_name)
    settings, text = config.posterior, ""
    rows: list[PosteriorRow] = []
    coverage: list[dict[str, object]] = []
    for part, place in repetitions(config, folder):
        ready = prepare(part, models, place)
        refinement, train = _refinement(part, ready.surrogate), ready.data.split.train
        sizes = {"count": settings.samples, "tolerance": settings.tolerance, "limit": settings.limit, "seed": part.seed}
        rows += posterior_rows(ready.models, refinement, train, part.targets, **sizes)
        for name, model in ready.models.items():
            if hasattr(model, "log_prob"):  # the model has a density
                density, generator = cast(DensityModel, model), torch.Generator().manual_seed(part.seed)
                sizes = {"count": settings.designs, "samples": settings.ranks}
                shares = expected_coverage(density, ready.surrogate, settings.levels, **sizes, generator=generator)
                coverage.append({"method": name, "seed": part.seed, **{f"{level:g}": share for level, share in shares.items()}})
        text = write_posterior(folder, data_name, rows, coverage)
    return text


def _simulated(config: DictConfig, models: Models, folder: Path, data_name: str) -> str:
    """Train every model on simulated rows and compare its samples with the exact posteriors of some observations."""
    settings, text = config.posterior, ""
    sizes = {"observations": settings.observations, "count": settings.samples, "truncate": settings.truncate}
    rows: list[SimulatedRow] = []
    for part, place in repetitions(config, folder):
        data, trained, seconds = _trained(part, models, place)
        rows += simulated_rows(trained, data.source.simulator, seconds, **sizes, seed=part.seed)
        text = write_simulated(folder, data_name, rows)
    return text


def resimulation(config: DictConfig, models: Models, folder: Path, data_name: str) -> str:
    """Train every model on an analytic problem and compare its samples with the exact forward function and posterior."""
    if "problem" not in config.data.source:
        raise ConfigError(f"Expected an analytic problem for suite=resimulation, got {data_name}: use data=kinematics.")
    settings, text = config.resimulation, ""
    results: list[dict[str, object]] = []
    for part, place in repetitions(config, folder):
        data, trained, seconds = _trained(part, models, place)
        problem, generator = data.source.problem, torch.Generator().manual_seed(_DRAW + part.seed)
        targets = problem.forward(problem.sample_prior(settings.targets, generator))
        posteriors = rejection_posteriors(problem, targets, settings.samples, settings.limit, generator)
        for label, model in trained.items():
            result = resimulate(model, problem, targets, posteriors, settings.samples, generator, settings.truncate)
            results.append({"method": label, "seed": part.seed, **asdict(result), "seconds_training": seconds.get(label)})
            text = write_resimulation(folder, data_name, results)
    return text


def speed(config: DictConfig, models: Models, folder: Path, data_name: str) -> str:
    """Time sampling, selection and localization of the packaged design or of runs, and training steps."""
    settings = config.speed
    runs, selection = config.runs or {"cinn": "pretrained"}, instantiate(config.selection, _convert_="all")
    designs = {name: InverseDesign.load(run, selection) for name, run in runs.items()}
    timer = Speed(designs, settings.target, settings.repeats, settings.seconds, config.seed)
    fast = {"newton": Newton(settings.tolerance)}
    slow = {"adam": Adam(tolerance=settings.tolerance), "gradient_descent": GradientDescent(steps=settings.slow_steps)}
    rows, papers, floors = [], [], []
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        floors.append(floor := Floor.measure(device, settings.repeats))
        rows += timer.rows(fast, settings.sizes, floor)
        papers += timer.paper(device, settings.paper_size, settings.paper_steps)
        rows += timer.rows(slow, [settings.slow_size], floor)
    design = next(iter(designs.values())).to("cpu")
    prop = design.surrogate.properties[0]
    facts = {"target": settings.target, "property": prop.name, "unit": prop.unit, "torch": torch.__version__}
    return write_speed(folder, rows, papers, floors, _training(config, models, design), facts)


def search(config: DictConfig, models: Models, folder: Path, data_name: str) -> str:
    """Find candidates by the generative model of each run and by uniform designs, at common and at rare targets."""
    settings, selection = config.search, instantiate(config.selection, _convert_="all")
    problems = cast(dict[str, dict], OmegaConf.to_container(settings.problems, resolve=True))
    sizes = {name: settings[name] for name in ("count", "batch", "limit")}
    rows: list[SearchRow] = []
    for run in (config.runs or {"cinn": "pretrained"}).values():
        localization = instantiate(config.localization, _convert_="all")
        design = InverseDesign.load(run, selection, localization, config.accepted_error)
        rows += tqdm(search_rows(design, problems, seed=config.seed, **sizes), desc="Search", unit="row")
    write_json(folder / "search.json", {"data": data_name, **sizes, "rows": [asdict(row) for row in rows]})
    text = records_table([row.cells() for row in rows])
    write_text(folder / "search.md", text)
    return text


def _training(config: DictConfig, models: Models, design: InverseDesign) -> list[TrainingRow]:
    """Time training steps of the cINN and of the INN of ``conf/model`` on uniform designs of the surrogate's space."""
    batch, surrogate = config.speed.batch_size, design.surrogate
    x = surrogate.space.sample(4 * batch, torch.Generator().manual_seed(config.seed))
    rows = Batch(x, surrogate.predict_many(x)[0])
    data = DesignDataModule((rows.x, rows.y), surrogate.space, surrogate.properties, surrogate.prototype)
    timed = []
    for name in [name for name in PLAIN_LOSSES if name in models]:
        module = build_module(models[name], data).train()
        module.network.fit_scales(rows)
        timed += training_rows(name, module, rows, batch, config.speed.training_steps)
    return timed


SUITES: Mapping[str, Callable[[DictConfig, Models, Path, str], str]] = {
    suite.__name__: suite
    for suite in (table1, posterior, resimulation, learning_curves, speed, search, published, paper, peers)
}
"""The suites by their names; each returns its tables as Markdown."""


def _trained(config: DictConfig, models: Models, folder: Path) -> tuple[Any, dict[str, InverseModel], dict[str, float]]:
    """The data module of the configuration, the models trained on its rows by their label, and the seconds of each."""
    data = instantiate(config.data, _convert_="all")
    with Trainings(config.workers) as trainings:
        return data, *train_models(config, models, data, folder, trainings)


def _refinement(config: DictConfig, surrogate: Surrogate, accurate_surrogate: Surrogate | None = None) -> Refinement:
    selection, localization = (instantiate(config[name], _convert_="all") for name in ("selection", "localization"))
    return Refinement(surrogate, selection, localization, config.accepted_error, accurate_surrogate)
