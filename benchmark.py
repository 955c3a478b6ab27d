"""Benchmarks: `python benchmark.py data=mos2_gpaw` for Table 1 of the paper; `suite=` chooses another one."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from matdesinne.cli.arguments import check_keys, check_numbers
from matdesinne.cli.config import config_folder, entry_point


@check_keys("benchmark")
@hydra.main(version_base="1.3", config_path=config_folder(), config_name="benchmark")
@entry_point
def main(config: DictConfig) -> None:
    """Run one suite, print its tables and log them."""
    from hydra.core.hydra_config import HydraConfig

    from matdesinne.benchmark.preparation import gather
    from matdesinne.benchmark.report import log_suite
    from matdesinne.benchmark.suites import SUITES
    from matdesinne.errors import ConfigError
    from matdesinne.files import list_folder
    from matdesinne.reporting.provenance import write_provenance

    if config.suite not in SUITES:
        raise ConfigError(f"Expected suite out of {list(SUITES)}, got {config.suite!r}: choose one.")
    counts = ["num_samples", "repeats", "workers", "evaluated", "trainer.max_epochs"]
    counts += [
        "resimulation.targets",
        "resimulation.samples",
        "posterior.samples",
        "posterior.observations",
        "published.localized",
    ]
    check_numbers(config, {"seed": 0, **dict.fromkeys(counts, 1)})
    folder = Path(config.folder)
    sources = HydraConfig.get().runtime.config_sources
    own = [Path(source.path) / "model" for source in sources if source.provider == "command-line"]  # --config-dir
    models = gather(config, Path(config_folder()) / "model", own)
    print(SUITES[config.suite](config, models, folder, HydraConfig.get().runtime.choices["data"]))
    write_provenance(folder, config, list(HydraConfig.get().overrides.task))
    if config.get("logger") is not None:
        log_suite(config, folder)
    print(list_folder(folder))


if __name__ == "__main__":
    main()
