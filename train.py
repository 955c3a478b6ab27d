"""Train a generative model (and the surrogate that it needs): `python train.py model=cinn data=mos2_gpaw`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from matdesinne.cli.arguments import check_keys, check_numbers, null_groups
from matdesinne.cli.config import config_folder, entry_point


@null_groups("model", "surrogate", "callbacks", "logger")
@check_keys("train")
@hydra.main(version_base="1.3", config_path=config_folder(), config_name="train")
@entry_point
def main(config: DictConfig) -> float:
    """Train, save, log; return the metric that a sweep minimises."""
    import pytorch_lightning as pl
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from matdesinne.files import write_json
    from matdesinne.surrogates.base import Surrogate
    from matdesinne.training import runs, sweeps
    from matdesinne.training.build import build_module, check_device, check_property
    from matdesinne.training.loggers import closed_runs, log_results, make_loggers

    folder, resume = Path(config.folder), config.resume is not None
    config = runs.prepare_folder(config, folder, list(HydraConfig.get().overrides.task))
    least = {"seed": 0, "trainer.max_epochs": 1, "trainer.gradient_clip_val": 0.0, "callbacks.early_stopping.patience": 1}
    check_numbers(config, least)
    device = check_device(config.trainer)
    pl.seed_everything(config.seed, verbose=False)

    data = instantiate(config.data, _convert_="all")
    check_property(config.property, data.properties)
    write_json(folder / "split.json", {**data.split.row_ids(), "duplicates_removed": data.duplicates})
    trained: Surrogate | None
    with closed_runs(), runs.resumable(folder):
        if config.get("model") is None:
            loggers = make_loggers(config.get("logger"))
            trained = runs.train_surrogate(config, data, folder, config.surrogate, config.seed, loggers, resume)
        else:
            model = build_module(config.model, data)  # before the surrogate trains: wrong settings are found here
            trained = runs.trained_surrogate(config, data) if config.get("surrogate") else None
            rows = runs.add_synthetic_rows(data, trained, device)
            loggers = make_loggers(config.get("logger"))
            network = runs.train_model(config, model, rows, trained, folder, loggers, resume)
            runs.save_design(folder, network, trained)
            runs.save_accurate_surrogates(config, data, folder)
        log_results(loggers, metrics=sweeps.read_metrics(folder), images={"samples": folder / "samples.png"})
    accuracy = runs.report_accuracy(folder, trained, data)
    print(*(entry.sentence() for entry in accuracy), runs.closing_line(folder), sep="\n")
    return sweeps.objective(folder)


if __name__ == "__main__":
    main()
