"""Make Table 1 of the paper: `python benchmark.py data=mos2_gpaw`, or re-simulate an analytic problem: `suite=resimulation`."""

from dataclasses import asdict
from pathlib import Path

import hydra
from omegaconf import DictConfig

from matdesinne.config import config_folder, entry_point


def table1(config: DictConfig, folder: Path, data_name: str) -> None:
    """Train what is missing, generate, score, write Table 1."""
    from hydra.utils import instantiate
    from tqdm import tqdm

    from matdesinne.benchmark.preparation import gather, prepare
    from matdesinne.benchmark.report import write_report

    models = gather(config, Path(config_folder()) / "model")
    selection = instantiate(config.selection, _convert_="all")
    localization = instantiate(config.localization, _convert_="all")
    table, facts = prepare(config, models, selection, localization, folder)
    rows = list(tqdm(table.rows(config.targets), desc="Table 1", unit="row"))
    print(write_report(folder, data_name, table.surrogate.properties[0].unit, rows, facts))


def resimulation(config: DictConfig, folder: Path, data_name: str) -> None:
    """Train every model on an analytic problem and evaluate the exact forward function on its samples."""
    import torch
    from hydra.utils import instantiate

    from matdesinne.benchmark.preparation import gather, train_models
    from matdesinne.benchmark.resimulation import resimulate
    from matdesinne.errors import ConfigError
    from matdesinne.files import write_json

    if "problem" not in config.data.source:
        raise ConfigError(f"Expected an analytic problem for suite=resimulation, got {data_name}: use data=kinematics.")
    data = instantiate(config.data, _convert_="all")
    trained, seconds = train_models(config, gather(config, Path(config_folder()) / "model"), data, folder)
    results = {}
    for label, model in trained.items():
        generator = torch.Generator().manual_seed(config.seed)
        result = resimulate(model, data.source.problem, config.resimulation.targets, config.resimulation.samples, generator)
        results[label] = {**asdict(result), "seconds_training": seconds.get(label)}
        print(label, results[label])
    write_json(folder / "resimulation.json", {"data": data_name, "seed": config.seed, "methods": results})


@hydra.main(version_base="1.3", config_path=config_folder(), config_name="benchmark")
@entry_point
def main(config: DictConfig) -> None:
    """Run the chosen suite."""
    from hydra.core.hydra_config import HydraConfig

    from matdesinne.errors import ConfigError

    suites = {"table1": table1, "resimulation": resimulation}
    if config.suite not in suites:
        raise ConfigError(f"Expected suite out of {list(suites)}, got {config.suite!r}: choose one.")
    folder = Path(config.folder)
    suites[config.suite](config, folder, HydraConfig.get().runtime.choices["data"])
    print(f"Wrote {', '.join(sorted(path.name for path in folder.iterdir() if path.is_file()))} to {folder}")


if __name__ == "__main__":
    main()
