"""The report's section on transitions, and the tables behind it."""

from __future__ import annotations

__all__ = ["TransitionResults", "find_transitions", "transitions_section"]

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from hydra.utils import instantiate
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.rules import start_design
from matdesinne.exploration.transitions.figures import draw_remote, draw_shortest, draw_small, draw_structures, write_structures
from matdesinne.exploration.transitions.search import TransitionSearch
from matdesinne.exploration.transitions.transition import Transitions
from matdesinne.files import write_table
from matdesinne.network import load_network, run_folder
from matdesinne.reporting.drawing import axis_label
from matdesinne.reporting.report import Section, Table
from matdesinne.surrogates.base import Surrogate

_LISTED = 12
"""Sets of several knobs in the table of the shortest transitions."""


@dataclass(frozen=True)
class TransitionResults:
    """The transitions that a search has found.

    Args:
        search: its settings.
        accurate: the accurate surrogate that predicts the small transitions; ``None`` if the fast one predicts them.
        small: distinct transitions by a small change of one knob, the best first.
        shortest: the shortest transition of each start and set of knobs.
        remote: generated designs, the farthest from any transition first.
        distance: their distances from the nearest transition, in half-widths of the box.
    """

    search: TransitionSearch
    accurate: Surrogate | None
    small: Transitions
    shortest: Transitions
    remote: Float[Tensor, "n dx"]
    distance: Float[Tensor, " n"]

    @property
    def best(self) -> Transitions:
        """The first of the small transitions, which are drawn, written as structures, and checked by an oracle."""
        return self.small.take(torch.arange(min(self.search.best, len(self.small))))


def find_transitions(exploration: Exploration, config: DictConfig) -> TransitionResults:
    """Search for transitions as the keys ``transitions``, ``design`` and ``run`` of a configuration say.

    The accurate surrogate is that of the run for the property of its surrogate, if there is one.
    """
    search: TransitionSearch = instantiate(config.transitions, _convert_="all")
    surrogate, run = exploration.surrogate, run_folder(config.run)
    name = f"accurate_{surrogate.properties[0].name}"
    known = (run / f"{name}.safetensors").is_file()
    accurate = load_network(Surrogate, run, name).to(surrogate.device) if known else None
    tables = [table.designs for table in exploration.generated]
    starts = [start_design(surrogate, dict(config.design))[0].unsqueeze(0)] if config.design else tables
    small = search.small_changes(tables, surrogate, accurate)
    return TransitionResults(search, accurate, small, search.shortest(starts, surrogate), *search.remotest(tables, surrogate))


def transitions_section(exploration: Exploration, results: TransitionResults) -> Section:
    """Draw the transitions, write them as tables and structures, and return the section of the report about them."""
    surrogate, folder = exploration.surrogate, exploration.folder
    small, shortest, best = results.small, results.shortest, results.best
    remote = _remote_columns(surrogate, results)
    tables = {"transitions": small.columns(), "transitions_by_knobs": shortest.columns(), "remote": remote}
    for name, columns in tables.items():
        for suffix in ("parquet", "csv"):
            write_table(folder / f"{name}.{suffix}", columns)
    figures = []
    if len(small) > 0:
        figures.append(draw_small(small, best, results.accurate or surrogate, folder))
        if surrogate.prototype is not None:
            write_structures(best, surrogate.prototype, folder)
            figures.append(draw_structures(best, surrogate.prototype, folder))
    if len(shortest) > 0:
        figures.append(draw_shortest(shortest, _shown_knobs(shortest), folder))
    if results.distance.isfinite().any():
        figures.append(draw_remote(surrogate, results.remote, results.distance, folder))
    listed = [_small_table(best), _shortest_table(shortest), _remote_table(results, remote)]
    return Section("Transitions", _text(results), figures, listed)


def _text(results: TransitionResults) -> str:
    search, small = results.search, results.small
    prop = small.prop
    name, levels = prop.name.replace("_", " "), " or ".join(f"{level:g}" for level in sorted(search.levels))
    counts = ", ".join(f"{small.knobs.count(knob)} by {knob}" for knob in dict.fromkeys(small.knobs))
    refined = results.accurate is not None
    return (
        f"A transition takes the {name} from at least {levels} {prop.unit} below {prop.floor or 0.0:g} {prop.unit} to as much "
        f"above it, or back. {len(small)} distinct transitions take less than {100 * search.small:g} % of half the range of "
        f"one knob{f' ({counts})' if counts else ''}, as predicted by the {'accurate ' if refined else ''}surrogate. Two are "
        "distinct if their starts, and all images of these under the symmetries, are at least "
        f"{search.apart:g} half-widths of the box apart.\n\n"
        "The most probable transitions come first. The probability that a transition is real is the probability that one end "
        "is on its side, plus that of the other, minus 1. Both come from the calibrated spread of the prediction"
        f"{', widened by its difference from the prediction of the fast surrogate' if refined else ''}. The result is exact if "
        "both ends have the same error, as similar designs do, and otherwise a lower bound.\n\n"
        f"For {_count_starts(results.shortest)} designs, a search for each set of knobs found the shortest transition across "
        f"{min(search.levels):g} {prop.unit}. It scans the whole range of one knob; for several knobs it projects the design "
        "onto the level set, in coordinates scaled by the box."
    )


def _small_table(best: Transitions) -> Table:
    unit, prop = best.prop.unit, best.prop.name.replace("_", " ")
    rows = []
    for row, name in enumerate(best.knobs):
        knob = best.space.index(name)
        change = f"{name}: {best.before[row, knob]:.4f} to {best.after[row, knob]:.4f} {best.space.parameters[knob].unit}"
        values = [f"{best.value[row, end]:.3f} ± {best.std[row, end]:.3f}" for end in range(2)]
        rows.append([row + 1, change, 100 * best.size[row].item(), *values, best.probability[row].item()])
    heads = ["", "change", "% of half the range", f"{prop} before [{unit}]", f"after [{unit}]", "probability"]
    return Table(f"The best {len(best)} small transitions; transitions.csv lists all parameters of all of them.", heads, rows)


def _count_starts(transitions: Transitions) -> int:
    return len({tuple(row) for row in transitions.before.tolist()})


def _shown_knobs(shortest: Transitions) -> list[str]:
    """Returns the single knobs, and those sets of several that have the smallest median changes."""
    names = list(dict.fromkeys(shortest.knobs))
    several = sorted((name for name in names if "+" in name), key=lambda name: shortest.sizes(name).median().item())
    return [name for name in names if "+" not in name] + several[:_LISTED]


def _shortest_table(shortest: Transitions) -> Table:
    starts, rows = _count_starts(shortest), []
    for name in _shown_knobs(shortest):
        sizes = shortest.sizes(name)
        smallest, median = (100 * sizes.quantile(q).item() for q in (0.0, 0.5))
        rows.append([name.replace("+", ", "), f"{len(sizes)} of {starts}", smallest, median])
    heads = ["knobs", "designs with a transition", "smallest change [% of a half-width]", "median"]
    return Table("Shortest transitions by the knobs that may change; transitions_by_knobs.csv lists all.", heads, rows)


def _remote_columns(surrogate: Surrogate, results: TransitionResults) -> dict[str, tuple[str, list[float]]]:
    prop, designs = surrogate.properties[0], results.remote
    columns = {p.name: (p.unit, designs[:, i].tolist()) for i, p in enumerate(surrogate.space.parameters)}
    columns[prop.name] = (prop.unit, surrogate.predict_many(designs)[0][:, 0].tolist())
    columns["distance"] = ("half-widths of the box", results.distance.tolist())
    return columns


def _remote_table(results: TransitionResults, columns: Mapping[str, tuple[str, list[float]]]) -> Table:
    prop = results.small.prop
    *designs, values, distances = (values[: results.search.best] for _, values in columns.values())
    shown = [distance if distance < torch.inf else "none found" for distance in distances]
    rows = [[f"{y:.3f}", *row] for y, *row in zip(values, shown, *designs, strict=True)]
    heads = [axis_label(prop), "distance [half-widths]", *(f"{p.name} [{p.unit}]" for p in results.small.space.parameters)]
    return Table("Generated designs farthest from any transition, with all knobs free; remote.csv lists all.", heads, rows)
