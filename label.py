"""Labels by DFT or another oracle: `python label.py points=candidates.parquet`, or `task=validate candidates=FOLDER`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from matdesinne.cli.arguments import check_keys, check_numbers
from matdesinne.cli.config import config_folder, entry_point


@check_keys("label")
@hydra.main(version_base="1.3", config_path=config_folder(), config_name="label")
@entry_point
def main(config: DictConfig) -> None:
    """Run the chosen task."""
    from matdesinne.errors import ConfigError
    from matdesinne.files import list_folder
    from matdesinne.labelling.tasks import TASKS
    from matdesinne.training.loggers import closed_runs

    if config.task not in TASKS:
        raise ConfigError(f"Expected task out of {list(TASKS)}, got {config.task!r}: choose one.")
    least = {"seed": 0, "per_target": 1, "outlier": 0.0, "sobol.count": 1, "sobol.start": 0, "sobol.seed": 0}
    check_numbers(config, {**least, **{f"active.{name}": 1 for name in ("rounds", "per_round", "fresh", "num_samples")}})
    folder = Path(config.folder)
    with closed_runs():
        print(TASKS[config.task](config, folder))
    print(list_folder(folder))


if __name__ == "__main__":
    main()
