"""Figures of candidates: what was asked, what came, where it lies in the design space."""

from __future__ import annotations

__all__ = ["draw_candidates", "run_section"]

from pathlib import Path

import matplotlib.figure
import numpy as np

from matdesinne.files import atomic_path
from matdesinne.pipeline import DesignRun
from matdesinne.reporting.drawing import bin_edges
from matdesinne.reporting.palette import BLUE, GREY, VERMILLION
from matdesinne.reporting.report import Picture, Section, Table

_SAMPLED, _KEPT, _TARGET = GREY, BLUE, VERMILLION


def draw_candidates(run: DesignRun, path: str | Path) -> None:
    """Draw histograms of the predicted properties against the target, and of every parameter.

    Grey: as sampled; blue: the final candidates; orange: the target. The two sets are drawn as densities.

    Args:
        run: the stages of a generation.
        path: the picture, e.g. ``candidates.png`` or ``.pdf``.
    """
    sampled, kept = run.stages["sampled"], run.candidates
    panels = len(kept.properties) + kept.space.dimension
    columns = min(panels, 4)
    rows = -(-panels // columns)
    width, height = 3.2 * columns, 2.6 * rows
    figure = matplotlib.figure.Figure(figsize=(width, height))
    # inches around and between panels: a layout engine would draw everything twice
    figure.subplots_adjust(0.5 / width, 0.5 / height, 1 - 0.1 / width, 1 - 0.4 / height, 0.2, 0.25)
    axes = list(np.atleast_1d(figure.subplots(rows, columns)).flat)
    for j, prop in enumerate(kept.properties):
        axis = axes[j]
        values, final = sampled.mean[:, j].numpy(), kept.mean[:, j].numpy()
        # at 0.1 % on either side a few strays would squeeze the rest
        low, high = np.quantile(values, 0.001, method="lower"), np.quantile(values, 0.999, method="higher")
        bins = bin_edges(min(low, final.min()), max(high, final.max()), 60)
        axis.hist(values, bins=bins, density=True, histtype="stepfilled", color=_SAMPLED, label="sampled")
        axis.hist(final, bins=bins, density=True, histtype="step", color=_KEPT, label=kept.stage)
        for edge in {kept.target.lower[j], kept.target.upper[j]}:
            if np.isfinite(edge):
                axis.axvline(edge, color=_TARGET, linestyle="--", label="target")
        axis.set(xlabel=f"{prop.name} [{prop.unit}]", yscale="log")
        axis.legend(fontsize="small")
    for i, parameter in enumerate(kept.space.parameters):
        axis = axes[len(kept.properties) + i]
        shown, final = sampled.designs[:, i].numpy(), kept.designs[:, i].numpy()
        bins = bin_edges(min(shown.min(), final.min()), max(shown.max(), final.max()), 40)
        axis.hist(shown, bins=bins, density=True, histtype="stepfilled", color=_SAMPLED)
        axis.hist(final, bins=bins, density=True, histtype="step", color=_KEPT)
        axis.set(xlabel=f"{parameter.name} [{parameter.unit}]")
    for axis in axes[panels:]:
        axis.set_axis_off()
    figure.suptitle(f"{len(kept):,} candidates for {kept.target.format(kept.properties)}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def run_section(run: DesignRun, picture: Path) -> Section:
    """A generation as a section of a report: stages with counts, errors and seconds, and the picture.

    Args:
        run: the stages of a generation.
        picture: what `draw_candidates` drew.
    """
    properties = run.candidates.properties
    heads = ["stage", "designs", *(f"mean |{prop.name} - target| [{prop.unit}]" for prop in properties), "time [s]"]
    rows = [
        [name, len(table), *table.error.mean(dim=0).tolist(), float(run.seconds.get(name, 0.0))]
        for name, table in run.stages.items()
    ]
    figure = Picture(
        picture,
        "Predicted properties against the target, and every parameter: grey as sampled, blue the final candidates, orange "
        "the target; densities.",
        "Histograms of the predictions and of every parameter for the samples and for the candidates.",
    )
    text = (
        "Errors are those of the surrogate that localizes: how near the localization came, not how near a calculation will "
        f"come. Samples outside the design space: {run.outside:,}."
    )
    return Section("Candidates", text, [figure], [Table("Designs after each stage.", heads, rows)])
