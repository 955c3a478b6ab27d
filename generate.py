"""Generate candidates for a target: `python generate.py target=1.0 num_samples=10000`."""

from collections.abc import Mapping
from pathlib import Path

import hydra
from omegaconf import DictConfig

from matdesinne.cli.arguments import by_name, check_keys, check_numbers, names_in, verbatim
from matdesinne.cli.config import config_folder, entry_point


@verbatim("where", "minimize")
@check_keys("generate")
@hydra.main(version_base="1.3", config_path=config_folder(), config_name="generate")
@entry_point
def main(config: DictConfig) -> None:
    """Load the networks, sample, select and localize, write the candidates and a report."""
    import torch
    from hydra.utils import instantiate

    from matdesinne.exports import Exports
    from matdesinne.files import list_folder
    from matdesinne.network import run_folder
    from matdesinne.pipeline import InverseDesign
    from matdesinne.reporting.accuracy import read_accuracy
    from matdesinne.reporting.changes import start_sentence, strain_sentence
    from matdesinne.reporting.closing import closing_lines
    from matdesinne.reporting.designs import write_run
    from matdesinne.selection import All, Expression
    from matdesinne.start_files import read_start

    check_numbers(config, {"num_samples": 1, "seed": 0, "export_limit": 1})
    if not isinstance(config.accepted_error, Mapping):
        check_numbers(config, {"accepted_error": 0.0})
    exports = Exports(list(config.export), config.export_limit)
    rule = [] if config.where is None else [Expression(config.where)]
    selection = All([instantiate(config.selection, _convert_="all"), *rule])
    localization = instantiate(config.localization, _convert_="all")
    accepted = by_name(config, "accepted_error") if isinstance(config.accepted_error, Mapping) else config.accepted_error
    asked = names_in(config.target, config.where, config.minimize)
    design = InverseDesign.load(
        config.run, selection, localization, accepted, config.refine_with, further=asked, minimize=config.minimize
    )
    bounds, fixed = by_name(config, "bounds"), by_name(config, "fixed")
    generator = torch.Generator().manual_seed(config.seed)
    space, prototype = design.model.space, design.surrogate.prototype
    start = None if config.start is None else read_start(config.start, prototype, space, bounds, fixed)
    run = design.to(config.accelerator).run(config.target, config.num_samples, generator, bounds, fixed, start, config.truncate)

    folder, source = Path(config.folder), design.accurate_surrogate or design.surrogate
    text = closing_lines(run.candidates, source, read_accuracy(run_folder(config.run)))
    write_run(run, folder, config, text, design.surrogate.prototype, exports, config.structures)
    if config.get("logger") is not None:
        from matdesinne.training.loggers import closed_runs, log_results, make_loggers  # import Lightning, which takes seconds

        with closed_runs():
            loggers = make_loggers(config.logger)
            images, pages = {"candidates": folder / "candidates.png"}, {"report": folder / "report.html"}
            log_results(loggers, metrics=run.metrics(), images=images, pages=pages)
    changes = filter(None, (start_sentence(run.candidates), strain_sentence(run.candidates)))
    print(run.report(), text, *changes, list_folder(folder), sep="\n")


if __name__ == "__main__":
    main()
