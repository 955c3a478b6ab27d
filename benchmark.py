"""Make Table 1 of the paper: `python benchmark.py data=mos2_gpaw`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from matdesinne.config import config_folder, entry_point


@hydra.main(version_base="1.3", config_path=config_folder(), config_name="benchmark")
@entry_point
def main(config: DictConfig) -> None:
    """Compose, train what is missing, generate, score, write."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate
    from tqdm import tqdm

    from matdesinne.benchmark.preparation import gather, prepare
    from matdesinne.benchmark.report import write_report

    folder = Path(config.folder)
    models = gather(config, Path(config_folder()) / "model")
    table, facts = prepare(
        config,
        models,
        instantiate(config.selection, _convert_="all"),
        instantiate(config.localization, _convert_="all"),
        folder,
    )
    rows = list(tqdm(table.rows(config.targets), desc="Table 1", unit="row"))
    data, unit = HydraConfig.get().runtime.choices["data"], table.surrogate.properties[0].unit
    print(write_report(folder, data, unit, rows, facts))
    print(f"Wrote table1.json, .csv, .md and .png to {folder}")


if __name__ == "__main__":
    main()
