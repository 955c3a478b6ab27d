"""Generate candidates for a target: `python generate.py target=1.0 num_samples=10000`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from matdesinne.cli.arguments import by_name, check_numbers, verbatim
from matdesinne.cli.config import config_folder, entry_point


@verbatim("where")
@hydra.main(version_base="1.3", config_path=config_folder(), config_name="generate")
@entry_point
def main(config: DictConfig) -> None:
    """Compose, sample, select, localize, write."""
    import torch
    from hydra.utils import instantiate

    from matdesinne.exports import Exports
    from matdesinne.files import list_folder, write_json
    from matdesinne.pipeline import InverseDesign
    from matdesinne.reporting.candidates import draw_candidates, run_section
    from matdesinne.reporting.report import write_report
    from matdesinne.selection import All, Expression
    from matdesinne.structures import write_extxyz

    check_numbers(config, {"num_samples": 1, "seed": 0, "accepted_error": 0.0, "export_limit": 1})
    exports = Exports(list(config.export), config.export_limit)
    rules = [instantiate(config.selection, _convert_="all")]
    if config.where is not None:
        rules.append(Expression(config.where))
    design = InverseDesign.load(
        config.run,
        All(rules),
        instantiate(config.localization, _convert_="all"),
        config.accepted_error,
        config.refine_with,
    ).to(config.accelerator)
    target = instantiate({"target": config.target}, _convert_="all")["target"]
    bounds, fixed = by_name(config, "bounds"), by_name(config, "fixed")
    run = design.run(target, config.num_samples, torch.Generator().manual_seed(config.seed), bounds, fixed)

    folder = Path(config.folder)
    run.candidates.write_parquet(folder / "candidates.parquet")
    run.candidates.write_csv(folder / "candidates.csv")
    if config.structures and design.surrogate.prototype is not None:
        write_extxyz(run.candidates, design.surrogate.prototype, folder / "candidates.extxyz")
    exports.write(run.candidates, design.surrogate.prototype, folder)
    write_json(folder / "summary.json", {**run.summary(), "seed": config.seed, "run": str(config.run)})
    draw_candidates(run, folder / "candidates.png")
    title = f"Candidates for {run.candidates.target.format(run.candidates.properties)}"
    settings = OmegaConf.to_container(config, resolve=True)
    write_report(folder / "report.html", title, "", [run_section(run, folder / "candidates.png")], settings)
    print(run.report())
    print(list_folder(folder))


if __name__ == "__main__":
    main()
