"""From a table to designs for a target: `python design.py table.csv property=yield target=90`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from matdesinne.cli.arguments import by_name, check_keys, check_numbers, positional, verbatim
from matdesinne.cli.config import composed, config_folder, entry_point

if TYPE_CHECKING:
    from matdesinne.data.datamodule import DesignDataModule
    from matdesinne.reporting.accuracy import Accuracy


@positional("table")
@verbatim("where", "train")
@check_keys("design")
@hydra.main(version_base="1.3", config_path=config_folder(), config_name="design")
@entry_point
def main(config: DictConfig) -> None:
    """Declare the table, train a surrogate and a generative model on it, generate, and say what to expect."""
    import pytorch_lightning as pl
    from hydra.utils import instantiate

    from matdesinne.training import own_table, runs
    from matdesinne.training.build import build_module, check_device
    from matdesinne.training.loggers import make_loggers

    least = {"seed": 0, "num_samples": 1, "next_designs": 1, "tolerance": 0.0, "accepted_error": 0.0, "enough": 0.0}
    check_numbers(config, least)
    folder = Path(config.folder)
    target = own_table.read_target(config)  # a wrong target ends the command before anything trains
    declaration = own_table.declare(config, folder)
    words = [*own_table.training_words(declaration, config.train), f"seed={config.seed}"]
    settings = own_table.with_declaration(composed("train", words), declaration, folder)
    pl.seed_everything(config.seed, verbose=False)

    data = instantiate(settings.data, _convert_="all")
    surrogate = runs.trained_surrogate(settings, data)
    accuracy = runs.report_accuracy(folder, surrogate, data)
    limits = own_table.tolerances(config, accuracy, data.space)
    if not own_table.is_trained(folder, settings, data):
        model = build_module(settings.model, data)
        callbacks = own_table.stop_when_on_target(accuracy, config.enough)
        rows = runs.add_synthetic_rows(data, surrogate, check_device(settings.trainer))
        loggers = make_loggers(settings.logger)
        network = runs.train_model(settings, model, rows, surrogate, folder, loggers, callbacks=callbacks)
        runs.save_design(folder, network, surrogate)
        own_table.mark_trained(folder, settings, data)
    _generate(config, target, folder, data, accuracy, limits)


def _generate(
    config: DictConfig,
    target: object,
    folder: Path,
    data: "DesignDataModule",
    accuracy: "Sequence[Accuracy]",
    limits: tuple[list[float], list[float]],
) -> None:
    """Generate for the target, write the candidates and the designs to make next, and say what to expect.

    The limits are those of `own_table.tolerances`.
    """
    import torch

    from matdesinne.files import list_folder
    from matdesinne.localization import Newton
    from matdesinne.pipeline import InverseDesign
    from matdesinne.reporting.closing import closing_paragraph, diverse_candidates, write_next_designs
    from matdesinne.reporting.designs import write_run
    from matdesinne.selection import All, Expression, InsideSpace, Tolerance
    from matdesinne.training import own_table

    tolerance, accepted = limits
    rule = [] if config.where is None else [Expression(config.where)]
    selection = All([InsideSpace(), Tolerance(tolerance), *rule])
    design = InverseDesign.load(folder, selection, Newton(0.01 * min(accepted)), accepted)
    print(own_table.ranges(accuracy, design.model))
    generator, bounds, fixed = torch.Generator().manual_seed(config.seed), by_name(config, "bounds"), by_name(config, "fixed")
    run = design.run(target, config.num_samples, generator, bounds, fixed)
    measured, place = data.with_all_rows().training_rows, own_table.folder_of_target(folder, run.candidates.target)
    text = closing_paragraph(run.candidates, design.surrogate, accuracy, measured)
    write_run(run, place, config, text, measured=measured)
    write_next_designs(place / "ten.csv", diverse_candidates(run.candidates, config.next_designs), design.surrogate, measured)
    print(run.report(), own_table.nearest_rows(measured, run.candidates), text, list_folder(place), sep="\n")


if __name__ == "__main__":
    main()
