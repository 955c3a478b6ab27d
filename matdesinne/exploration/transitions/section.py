"""The section on transitions: small changes that take a design across the floor of its property, and designs that are safe."""

from __future__ import annotations

__all__ = ["switching"]

import torch
from hydra.utils import instantiate
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.rules import start_design
from matdesinne.exploration.transitions.figures import draw_kinds, draw_remote, draw_small, draw_structures
from matdesinne.exploration.transitions.files import write_pairs
from matdesinne.exploration.transitions.search import TransitionSearch
from matdesinne.exploration.transitions.transition import Transitions
from matdesinne.network import load_network, run_folder
from matdesinne.reporting.drawing import write_data
from matdesinne.reporting.report import Section, Table
from matdesinne.surrogates.base import Surrogate

_LISTED = 12
"""Sets of several knobs in the table of kinds, the shortest of them."""


def switching(subject: Exploration, config: DictConfig) -> Section:
    """Small transitions of one knob, the shortest of every kind, and the designs that are far from any."""
    search: TransitionSearch = instantiate(config.transitions, _convert_="all")
    surrogate = subject.surrogate
    accurate = _accurate(surrogate, config.run)
    tables = [table.designs for table in subject.generated]
    small = search.small_changes(tables, surrogate, accurate)
    starts = [start_design(surrogate, dict(config.design))[0].unsqueeze(0)] if config.design else tables
    kinds = search.shortest(starts, surrogate)
    remote, far = search.remotest(tables, surrogate)
    _write(subject, small, kinds, remote, far)
    best = small.take(torch.arange(min(search.best, len(small))))
    figures = []
    if len(small) > 0:
        figures.append(draw_small(small, best, accurate, subject.folder))
        if surrogate.prototype is not None:
            write_pairs(best, surrogate.prototype, subject.folder)
            figures.append(draw_structures(best, surrogate.prototype, subject.folder))
    if len(kinds) > 0:
        figures.append(draw_kinds(kinds, _kinds_shown(kinds), subject.folder))
    if far.isfinite().any():
        figures.append(draw_remote(surrogate, remote, far, subject.folder))
    listed = [_small_table(best), _kinds_table(kinds), _remote_table(surrogate, remote[: search.best], far[: search.best])]
    return Section("Transitions", _text(search, small, kinds, accurate is not surrogate), figures, listed)


def _accurate(surrogate: Surrogate, run: str) -> Surrogate:
    """The accurate_surrogate of a run for the surrogate's own property, or the surrogate where there is none."""
    name, folder = f"accurate_{surrogate.properties[0].name}", run_folder(run)
    if not (folder / f"{name}.safetensors").is_file():
        return surrogate
    return load_network(Surrogate, folder, name).eval().to(surrogate.device)  # type: ignore[type-abstract]


def _text(search: TransitionSearch, small: Transitions, kinds: Transitions, refined: bool) -> str:
    prop = small.prop
    name, levels = prop.name.replace("_", " "), " or ".join(f"{level:g}" for level in sorted(search.levels))
    percent = 100 * search.small
    judge = "the accurate surrogate" if refined else "the surrogate"
    counts = ", ".join(f"{small.knobs.count(knob)} by {knob}" for knob in dict.fromkeys(small.knobs))
    return (
        f"A transition takes the {name} from at least {levels} {prop.unit} below {prop.floor or 0.0:g} {prop.unit} to as much "
        f"above it, or back. {len(small)} distinct transitions take less than {percent:g} % of half the range of one knob"
        f"{f' ({counts})' if counts else ''}, by {judge}; two are distinct when their starts, and all images of these under "
        f"the symmetries, are at least {search.apart:g} half-widths of the box apart.\n\n"
        "Their order: the most probable first. The probability that a transition is real is that of one end being on its side "
        "plus that of the other minus 1, from the calibrated spread of the prediction"
        f"{', widened by its difference from the fast surrogate,' if refined else ''}; it is exact where both ends have the "
        "same error, as near designs have, and a lower bound otherwise.\n\n"
        f"For {len({tuple(row) for row in kinds.before.tolist()})} designs, the shortest transition across "
        f"{min(search.levels):g} {prop.unit} was looked for with each set of knobs: one knob by a scan of its whole range, "
        "several by the projection onto the level set that is shortest in coordinates scaled by the box."
    )


def _small_table(best: Transitions) -> Table:
    unit, prop = best.prop.unit, best.prop.name.replace("_", " ")
    rows = []
    for row in range(len(best)):
        knob = best.space.index(best.knobs[row])
        parameter = best.space.parameters[knob]
        ends = [best.before[row, knob].item(), best.after[row, knob].item()]
        words = [f"{parameter.name}: {ends[0]:.4f} to {ends[1]:.4f} {parameter.unit}", 100 * best.size[row].item()]
        values = [f"{best.value[row, end]:.3f} ± {best.std[row, end]:.3f}" for end in range(2)]
        rows.append([row + 1, *words, *values, best.probability[row].item()])
    heads = ["", "change", "% of half the range", f"{prop} before [{unit}]", f"after [{unit}]", "probability"]
    return Table(f"The best {len(best)} small transitions; all parameters of all stand in transitions.csv.", heads, rows)


def _kinds_shown(kinds: Transitions) -> list[str]:
    """Single knobs, all together, and of the other sets those with the shortest median."""
    names = list(dict.fromkeys(kinds.knobs))
    several = [name for name in names if "+" in name]
    order = sorted(several, key=lambda name: _sizes(kinds, name).median().item())
    return [name for name in names if name not in several] + order[:_LISTED]


def _sizes(kinds: Transitions, name: str) -> Float[Tensor, " n"]:
    return kinds.size[torch.tensor([knob == name for knob in kinds.knobs])]


def _kinds_table(kinds: Transitions) -> Table:
    starts = len({tuple(row) for row in kinds.before.tolist()})
    rows = []
    for name in _kinds_shown(kinds):
        sizes = _sizes(kinds, name)
        rows.append(
            [name.replace("+", ", "), f"{len(sizes)} of {starts}", *(100 * sizes.quantile(q).item() for q in (0.0, 0.5))]
        )
    heads = ["knobs", "designs with a transition", "smallest change [% of a half-width]", "median"]
    return Table("Shortest transitions by the knobs that may change, all in transitions_by_knobs.csv.", heads, rows)


def _remote_table(surrogate: Surrogate, designs: Float[Tensor, "n dx"], far: Float[Tensor, " n"]) -> Table:
    prop = surrogate.properties[0]
    y = surrogate.predict_many(designs)[0][:, 0]
    rows = [
        [f"{gap:.3f}", distance if torch.isfinite(torch.tensor(distance)) else "none found", *values]
        for gap, distance, values in zip(y.tolist(), far.tolist(), designs.tolist(), strict=True)
    ]
    heads = [f"{prop.name.replace('_', ' ')} [{prop.unit}]", "distance [half-widths]"]
    heads += [f"{parameter.name} [{parameter.unit}]" for parameter in surrogate.space.parameters]
    return Table("Generated designs farthest from any transition, with all knobs free; all in remote.csv.", heads, rows)


def _write(
    subject: Exploration, small: Transitions, kinds: Transitions, remote: Float[Tensor, "n dx"], far: Float[Tensor, " n"]
) -> None:
    prop = subject.surrogate.properties[0]
    columns = {p.name: (p.unit, remote[:, i].tolist()) for i, p in enumerate(subject.space.parameters)}
    columns[prop.name] = (prop.unit, subject.surrogate.predict_many(remote)[0][:, 0].tolist())
    columns["distance"] = ("half-widths of the box", far.tolist())
    for suffix in ("parquet", "csv"):
        write_data(subject.folder / f"transitions.{suffix}", small.columns())
        write_data(subject.folder / f"transitions_by_knobs.{suffix}", kinds.columns())
        write_data(subject.folder / f"remote.{suffix}", columns)
