"""The page about a validation: all candidates of each target, with those that the oracle has checked marked."""

from __future__ import annotations

__all__ = ["write_page", "write_validations"]

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.labelling.validation import Validation, write_validation
from matdesinne.reporting.candidates import candidate_view
from matdesinne.reporting.report import Picture, Section, write_report
from matdesinne.structures import Prototype


def write_validations(
    found: Mapping[str, Validation],
    tables: Sequence[Candidates],
    folder: Path,
    prototype: Prototype | None,
    outlier: float,
    seed: int,
    settings: object,
) -> dict[str, Path]:
    """Write files and page about each property that was compared, each in a folder of its name if they are several.

    For the arguments see `validate`, whose result is `found`, `write_validation` and `write_page`.

    Returns:
        The folder of each property.
    """
    places = {}
    for name, validation in found.items():
        places[name] = folder if len(found) == 1 else folder / name
        write_validation(validation, places[name], prototype, outlier, seed)
        prop = validation.chosen[0].properties[0]
        asking = [table.only([prop]) for table in tables if prop in table.asked]
        write_page(validation, asking, places[name], prototype, settings)
    return places


def write_page(
    validation: Validation, tables: Sequence[Candidates], folder: Path, prototype: Prototype | None, settings: object
) -> None:
    """Write ``report.html`` beside the files of `write_validation`.

    Args:
        validation: of some candidates of each table.
        tables: all candidates, one table for each target.
        folder: which has the picture ``validation.png``.
        prototype: the atoms of a design, where designs are crystals.
        settings: see `write_report`.
    """
    picture = Picture(
        folder / "validation.png",
        "Labels and the target, their distance to the predictions against the predicted spread, and example structures.",
        "For each target a histogram of the labels and the distance of label and prediction against the spread.",
    )
    sections = [Section("Labels of all targets", figures=[picture])]
    for table, chosen, labels in zip(tables, validation.chosen, validation.labels, strict=True):
        known = _labels(table, chosen, labels)
        text = f"Green: the {int(known.isfinite().sum())} candidates that were checked; their labels are on the last axis."
        title = table.target.format(table.properties)
        sections.append(Section(title, text, view=candidate_view(table, prototype, labels=known)))
    count = sum(int(labels.isfinite().sum()) for labels in validation.labels)
    write_report(folder / "report.html", "Validation of candidates", f"{count} candidates have a label.", sections, settings)


def _labels(table: Candidates, chosen: Candidates, labels: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
    """Returns the label of each row of the whole table, NaN where it was not chosen."""
    known = dict(zip(map(tuple, chosen.designs.tolist()), labels.tolist(), strict=True))
    return torch.tensor([known.get(tuple(design), math.nan) for design in table.designs.tolist()])
