"""Train a generative model (and the surrogate that it needs): `python train.py model=cinn data=mos2_gpaw`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from matdesinne.cli.config import check_numbers, config_folder, entry_point


@hydra.main(version_base="1.3", config_path=config_folder(), config_name="train")
@entry_point
def main(config: DictConfig) -> float:
    """Train, save, log; returns the metric that a sweep minimises."""
    import pytorch_lightning as pl
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from matdesinne.errors import InterruptionError
    from matdesinne.files import write_json
    from matdesinne.network import save_network
    from matdesinne.pipeline import InverseDesign
    from matdesinne.reporting.samples import draw_samples
    from matdesinne.training.build import build_module, check_device, check_property
    from matdesinne.training.fit import fit
    from matdesinne.training.loggers import closed_runs, log_results, make_loggers
    from matdesinne.training.metrics import TargetMetrics
    from matdesinne.training.runs import (
        add_synthetic_rows,
        prepare_folder,
        save_accurate_surrogates,
        train_surrogate,
        trained_surrogate,
    )
    from matdesinne.training.sweeps import objective, read_metrics

    folder, resume = Path(config.folder), config.resume is not None
    settings = prepare_folder(config, folder, list(HydraConfig.get().overrides.task))
    check_numbers(settings, {"seed": 0, "trainer.max_epochs": 1, "trainer.gradient_clip_val": 0.0})
    device = check_device(settings.trainer)
    data = instantiate(settings.data, _convert_="all")
    check_property(settings.property, data.properties)
    write_json(folder / "split.json", {**data.split.row_ids(), "duplicates_removed": data.duplicates})
    with closed_runs():
        pl.seed_everything(settings.seed, verbose=False)
        try:
            if settings.get("model") is None:
                loggers = make_loggers(settings.logger)
                train_surrogate(settings, data, folder, settings.surrogate, settings.seed, loggers, resume)
            else:
                model = build_module(settings.model, data)  # before the surrogate trains: it finds wrong settings
                surrogate = None if settings.get("surrogate") is None else trained_surrogate(settings, data)
                rows = add_synthetic_rows(data, surrogate, device)
                loggers = make_loggers(settings.logger)
                callbacks = [instantiate(callback) for callback in (settings.callbacks or {}).values()]
                if surrogate is not None:
                    callbacks.append(TargetMetrics(surrogate, rows.split.validation))
                kept = resume and (folder / "checkpoints" / "last.ckpt").is_file()
                trainer = instantiate(settings.trainer)
                network = fit(model, rows, trainer, folder, loggers=loggers, callbacks=callbacks, resume=kept)
                if surrogate is None:
                    save_network(network, folder, "model")
                else:
                    InverseDesign(network, surrogate).save(folder)
                    draw_samples(network, surrogate, rows.split.validation, folder / "samples.png")
                if settings.get("accurate_surrogate") is not None:
                    save_accurate_surrogates(settings, data, folder)
        except InterruptionError as error:
            raise InterruptionError(f"{error} Go on with: python train.py resume={folder}") from error
        log_results(loggers, metrics=read_metrics(folder), images={"samples": folder / "samples.png"})
    print(f"Wrote {folder}. Generate with: python generate.py run={folder} target=1.0")
    return objective(folder)


if __name__ == "__main__":
    main()
