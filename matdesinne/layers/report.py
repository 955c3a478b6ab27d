"""What the labelling of a layer says: errors against the number of labels, and the closing paragraph."""

from __future__ import annotations

__all__ = ["Batch", "closing_text", "curve_table", "write_curve"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.figure

from matdesinne.files import write_table
from matdesinne.labelling.validation import Validation
from matdesinne.reporting.drawing import printed_name, save_figure
from matdesinne.reporting.palette import BLUE, GREY, VERMILLION
from matdesinne.reporting.tables import markdown_table
from matdesinne.targets import Property

if TYPE_CHECKING:
    from matdesinne.layers.reference import Reference


@dataclass(frozen=True)
class Batch:
    """The state after a batch of labels.

    Args:
        labels: number of designs with a finished calculation.
        failed: number of those that failed.
        new_error: mean absolute error of the designs of the batch, predicted without them; ``None`` for the first batch.
        left_out_error: mean absolute error of all designs, each predicted from all others.
        minutes: of the calculations, summed over the processes.
    """

    labels: int
    failed: int
    new_error: float | None
    left_out_error: float
    minutes: float

    def within(self, accuracy: float) -> bool:
        """Whether both errors are known and at most so large."""
        return self.new_error is not None and max(self.new_error, self.left_out_error) <= accuracy

    def sentence(self, prop: Property) -> str:
        """Say it in one sentence."""
        new = "" if self.new_error is None else f"{self.new_error:.3g}{prop.suffix} for the designs of this batch, "
        failed = f" ({self.failed} failed)" if self.failed else ""
        return (
            f"{self.labels} labels{failed} in {self.minutes:.0f} min: mean error of {prop.name} {new}"
            f"{self.left_out_error:.3g}{prop.suffix} leaving out one design after another."
        )


def write_curve(batches: Sequence[Batch], prop: Property, accuracy: float, folder: Path) -> None:
    """Write the errors against the number of labels as ``learning_curve.csv``, ``.png`` and ``.pdf``."""
    units = {"labels": "1", "failed": "1", "minutes": "min"}
    rows = [asdict(batch) for batch in batches]
    columns = {name: (units.get(name, prop.unit), [row[name] for row in rows]) for name in rows[0]}
    write_table(folder / "learning_curve.csv", columns)
    figure = matplotlib.figure.Figure(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    labels = columns["labels"][1]
    for name, colour, text in (("new_error", BLUE, "designs of the batch"), ("left_out_error", VERMILLION, "one left out")):
        values = [float("nan") if value is None else value for value in columns[name][1]]
        axes.plot(labels, values, "o-", color=colour, label=text)
    axes.set_xticks(labels)
    axes.axhline(accuracy, color=GREY, linestyle="--", label="asked")
    axes.set(xlabel="labels", ylabel=f"mean error of {printed_name(prop.name)} [{prop.unit}]", ylim=(0, None))
    axes.legend(frameon=False)
    save_figure(figure, folder, "learning_curve")


def curve_table(batches: Sequence[Batch], prop: Property) -> str:
    """The errors against the number of labels as Markdown."""
    header = [
        "labels",
        "failed",
        f"error, designs of the batch [{prop.unit}]",
        f"error, one left out [{prop.unit}]",
        "minutes",
    ]
    return markdown_table(header, [list(asdict(batch).values()) for batch in batches])


def closing_text(
    reference: Reference, batches: Sequence[Batch], prop: Property, checks: Mapping[str, Validation], minutes: float
) -> str:
    """Say in one paragraph what the layer is, how many labels were spent, and how near the checked candidates are.

    Args:
        reference: the unstrained layer.
        batches: of the labelling.
        prop: the property whose error ended it.
        checks: validations by the names of the properties that were asked for.
        minutes: since the command started.
    """
    last = batches[-1]
    error = last.left_out_error if last.new_error is None else max(last.new_error, last.left_out_error)
    failed = f", of which {last.failed} failed" if last.failed else ""
    sentences = [
        reference.sentence(),
        f"{last.labels} labels{failed} took {last.minutes:.0f} min of calculations.",
        f"Expect a mean error of {error:.2g}{prop.suffix} in {prop.name}.",
    ]
    for name, validation in checks.items():
        [entry] = validation.errors(outlier=0.1, seed=0)
        unit = validation.chosen[0].properties[0].suffix
        sentences.append(
            f"The oracle checked {entry.labelled} candidates: {name} is {entry.mae:.3g}{unit} from the target on average, at "
            f"most {entry.largest:.3g}{unit}."
        )
    return " ".join([*sentences, f"This command took {minutes:.0f} min."])
