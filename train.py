"""Train a generative model (and the surrogate that it needs): `python train.py model=cinn data=mos2_gpaw`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from matdesinne.cli.arguments import check_numbers
from matdesinne.cli.config import config_folder, entry_point


@hydra.main(version_base="1.3", config_path=config_folder(), config_name="train")
@entry_point
def main(config: DictConfig) -> float:
    """Compose, train, write; a search makes small what is returned."""
    from hydra.core.hydra_config import HydraConfig

    from matdesinne.pipeline import InverseDesign
    from matdesinne.training.loggers import closed_runs
    from matdesinne.training.runs import prepare_folder, train_design
    from matdesinne.training.sweeps import objective

    folder = Path(config.folder)
    resume = config.resume is not None
    settings = prepare_folder(config, folder, list(HydraConfig.get().overrides.task))
    check_numbers(settings, {"seed": 0, "trainer.max_epochs": 1, "trainer.patience": 1, "trainer.gradient_clip_val": 0.0})
    with closed_runs():
        trained = train_design(settings, folder, resume)
    generate = f" Generate with: python generate.py run={folder} target=1.0" if isinstance(trained, InverseDesign) else ""
    print(f"Wrote {folder}.{generate}")
    return objective(folder)


if __name__ == "__main__":
    main()
