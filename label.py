"""Label designs by DFT or another oracle: `python label.py oracle=gpaw points=candidates.parquet`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from matdesinne.config import config_folder, entry_point


@hydra.main(version_base="1.3", config_path=config_folder(), config_name="label")
@entry_point
def main(config: DictConfig) -> None:
    """Compose, read or draw points, label, write."""
    from hydra.utils import instantiate

    from matdesinne.labelling.points import read_points
    from matdesinne.labelling.run import label_points

    oracle = instantiate(config.oracle, _convert_="all")
    if config.points == "sobol":
        points = instantiate(config.sobol).draw(oracle.space)
    else:
        points = read_points(config.points, oracle.space)
    run = label_points(oracle, points, instantiate(config.executor), Path(config.folder), config.retry)
    print(run.report())
    print(f"Wrote labels.parquet and records.jsonl to {config.folder}")


if __name__ == "__main__":
    main()
