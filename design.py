"""From a table, or the structure of a layer, to designs: `python design.py table.csv property=yield target=90`, `layer.cif`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from matdesinne.cli.arguments import by_name, check_keys, check_numbers, positional, verbatim
from matdesinne.cli.config import composed, config_folder, entry_point

if TYPE_CHECKING:
    from matdesinne.data.datamodule import DesignDataModule
    from matdesinne.pipeline import DesignRun
    from matdesinne.reporting.accuracy import Accuracy
    from matdesinne.surrogates.base import Surrogate


@positional("table", {"layer": ("structure", (".cif", ".vasp", ".poscar", ".xyz", ".extxyz", "poscar", "contcar"))})
@verbatim("where", "train")
@check_keys("design")
@hydra.main(version_base="1.3", config_path=config_folder(), config_name="design")
@entry_point
def main(config: DictConfig) -> None:
    """Take the way that the first word asks for."""
    least = {"seed": 0, "num_samples": 1, "next_designs": 1, "tolerance": 0.0, "accepted_error": 0.0, "enough": 0.0}
    check_numbers(config, least)
    if "structure" in config:
        from_structure(config, Path(config.folder))
    else:
        from_table(config, Path(config.folder))


def from_table(config: DictConfig, folder: Path) -> None:
    """Declare the table, train a surrogate and a generative model on it, generate, and say what to expect."""
    from hydra.utils import instantiate

    from matdesinne.files import list_folder
    from matdesinne.training import own_table, runs

    target = own_table.read_target(config)  # a wrong target ends the command before anything trains
    declaration = own_table.declare(config, folder)
    words = [*own_table.training_words(declaration, config.train), f"seed={config.seed}"]
    settings = own_table.with_declaration(composed("train", words), declaration, folder)

    data = instantiate(settings.data, _convert_="all")
    surrogate = runs.trained_surrogate(settings, data)
    accuracy = runs.report_accuracy(folder, surrogate, data)
    run, place, text = _design(config, settings, target, data, surrogate, accuracy)
    measured = data.with_all_rows().training_rows
    print(run.report(), own_table.nearest_rows(measured, run.candidates), text, list_folder(place), sep="\n")


def from_structure(config: DictConfig, folder: Path) -> None:
    """Relax the layer, label strained cells until the surrogate is accurate, generate, and check candidates by DFT."""
    import time

    from matdesinne.files import list_folder
    from matdesinne.layers import report
    from matdesinne.layers.reference import prepare_reference, read_start_layer
    from matdesinne.layers.run import check_candidates, learn, read_properties

    start = time.monotonic()
    check_numbers(config, {"labels": 2, "batch": 1, "checked": 1, "workers": 1, "accuracy": 0.0, "cell_cutoff": 1.0})
    layer = read_start_layer(config)
    properties, target = read_properties(config, layer)
    reference = prepare_reference(config, layer, folder)
    print(reference.sentence())
    words = ["data=layer", "logger=csv", f"seed={config.seed}", *shlex.split(config.train or "")]
    found = learn(config, composed("train", words), reference, properties, target, folder)
    run, place, text = _design(config, found.settings, target, found.data, found.surrogate, found.accuracy)
    print(report.curve_table(found.batches, found.asked), run.report(), text, sep="\n")
    checks = check_candidates(config, found, run.candidates, place / "checked")
    minutes = (time.monotonic() - start) / 60
    print(report.closing_text(reference, found.batches, found.asked, checks, minutes), list_folder(place), sep="\n")


def _design(
    config: DictConfig,
    settings: DictConfig,
    target: object,
    data: "DesignDataModule",
    surrogate: "Surrogate",
    accuracy: "Sequence[Accuracy]",
) -> "tuple[DesignRun, Path, str]":
    """Train the generative model, unless the folder has it, generate for the target, and write the candidates.

    Returns:
        The run, the folder of its candidates, and what to expect of them.
    """
    import pytorch_lightning as pl
    import torch

    from matdesinne.localization import Newton
    from matdesinne.pipeline import InverseDesign
    from matdesinne.reporting.closing import closing_lines, diverse_candidates, write_next_designs
    from matdesinne.reporting.designs import write_run
    from matdesinne.selection import All, Expression, InsideSpace, Tolerance
    from matdesinne.training import own_table

    folder = Path(config.folder)
    tolerance, accepted = own_table.tolerances(config, accuracy, data.space)
    pl.seed_everything(config.seed, verbose=False)
    own_table.train_once(settings, data, surrogate, accuracy, config.enough, folder)
    rule = [] if config.where is None else [Expression(config.where)]
    selection = All([InsideSpace(), Tolerance(tolerance), *rule])
    nearest = min(error for error, entry in zip(accepted, accuracy, strict=True) if own_table.is_asked(entry.name, target))
    design = InverseDesign.load(folder, selection, Newton(0.01 * nearest), accepted)
    print(own_table.ranges(accuracy, design.model))
    generator, bounds, fixed = torch.Generator().manual_seed(config.seed), by_name(config, "bounds"), by_name(config, "fixed")
    run = design.run(target, config.num_samples, generator, bounds, fixed)
    measured, place = data.with_all_rows().training_rows, own_table.folder_of_target(folder, run.candidates)
    text = closing_lines(run.candidates, design.surrogate, accuracy, measured)
    write_run(run, place, config, text, design.surrogate.prototype, measured=measured)
    write_next_designs(place / "ten.csv", diverse_candidates(run.candidates, config.next_designs), design.surrogate, measured)
    return run, place, text


if __name__ == "__main__":
    main()
