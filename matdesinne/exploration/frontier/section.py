"""The report's section on the frontier: picture and tables of what each value of a property costs at least."""

from __future__ import annotations

__all__ = ["frontier_section"]

from collections.abc import Sequence
from pathlib import Path

import torch
from hydra.utils import instantiate
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.frontier.checked import LABELS, CheckedDesigns, read_checked
from matdesinne.exploration.frontier.figure import draw_frontier
from matdesinne.exploration.frontier.kinds import strain_kinds
from matdesinne.exploration.frontier.search import Frontier, FrontierSearch
from matdesinne.files import Columns, write_table
from matdesinne.pipeline import InverseDesign
from matdesinne.reporting.drawing import printed_name
from matdesinne.reporting.report import Section, Table
from matdesinne.space import DesignSpace
from matdesinne.structures import write_extxyz

_CHECKED = "frontier_labels"
"""Folder of ``label.py`` inside that of ``explore.py`` whose labels are shown without being named."""
_STRAINS = ("strain_1", "strain_2", "strain_angle", "strain_biaxial", "strain_shear")


def frontier_section(exploration: Exploration, config: DictConfig) -> Section | None:
    """Find the frontier that the key ``frontier`` describes, draw it, and write it as tables and structures.

    Returns:
        The section; ``None`` where the run does not predict what is to be minimised by default.
    """
    search: FrontierSearch = instantiate(config.frontier, _convert_="all")
    surrogate, folder = exploration.surrogate, exploration.folder
    if not search.names <= {prop.name for prop in surrogate.properties}:
        surrogate = InverseDesign.load(config.run, further=search.names).surrogate
    frontier = search.find(surrogate)
    if frontier is None:
        return None
    columns = _columns(frontier)
    for suffix in ("csv", "parquet"):
        write_table(folder / f"frontier.{suffix}", columns)
    if surrogate.prototype is not None:
        write_extxyz(frontier.designs, surrogate.prototype, folder / "frontier.extxyz")
    checked = read_checked(_label_folders(search, folder), frontier, surrogate)
    tables = [_frontier_table(frontier)]
    if checked is not None:
        write_table(folder / "frontier_checked.csv", _checked_columns(frontier, checked))
        tables.append(_checked_table(frontier, checked))
    picture = draw_frontier(frontier, surrogate, checked, folder)
    return Section("Frontier", _text(frontier, checked), [picture], tables)


def _label_folders(search: FrontierSearch, folder: Path) -> list[Path]:
    if search.checked:
        return [Path(name) for name in search.checked]
    return [folder / _CHECKED] if (folder / _CHECKED / LABELS).is_file() else []


def _kinds(frontier: Frontier) -> list[str]:
    layer = frontier.designs.space.layer
    return [] if layer is None else strain_kinds(layer, frontier.designs.designs)


def _columns(frontier: Frontier) -> Columns:
    """The table of the frontier: what was asked, what it costs, the name of the strain, the design, the predictions."""
    prop, designs = frontier.prop, frontier.designs
    columns: dict[str, tuple[str, Sequence[object]]] = {
        "target": (prop.unit, frontier.values.tolist()),
        "minimum": (frontier.unit, frontier.cost.tolist()),
    }
    if designs.space.layer is not None:
        columns["strain"] = ("", _kinds(frontier))
        columns |= _strain_columns(designs.space, designs.designs)
    return columns | {name: column for name, column in designs.columns().items() if name != "stage"}


def _strain_columns(space: DesignSpace, x: Float[Tensor, "n dx"]) -> dict[str, tuple[str, Sequence[object]]]:
    layer = space.layer
    assert layer is not None
    strains = layer(x)
    return {name: (layer.unit(name), strains[name].tolist()) for name in _STRAINS}


def _checked_columns(frontier: Frontier, checked: CheckedDesigns) -> Columns:
    space = frontier.designs.space
    columns: dict[str, tuple[str, Sequence[object]]] = dict(space.to_columns(checked.designs))
    for k, (name, unit) in enumerate(((frontier.prop.name, frontier.prop.unit), ("minimised", frontier.unit))):
        columns[name] = (unit, checked.predictions[:, k].tolist())
        columns[f"{name}_label"] = (unit, checked.labels[:, k].tolist())
    return columns


def _frontier_table(frontier: Frontier) -> Table:
    designs, kinds = frontier.designs, _kinds(frontier)
    heads = [_head(frontier.prop.name, frontier.prop.unit), f"least {_head(frontier.objective.text, frontier.unit)}"]
    heads += ["strain", "ε₁ [%]", "ε₂ [%]"] if kinds else []
    heads += [_head(parameter.name, parameter.unit) for parameter in designs.space.parameters]
    strains = {} if designs.space.layer is None else designs.space.layer(designs.designs)
    rows = []
    for row, (value, cost) in enumerate(zip(frontier.values.tolist(), frontier.cost.tolist(), strict=True)):
        named = [kinds[row], *(100 * strains[name][row].item() for name in ("strain_1", "strain_2"))] if kinds else []
        rows.append([value, cost, *named, *designs.designs[row].tolist()])
    return Table("Designs of the frontier; frontier.csv has all columns.", heads, rows)


def _checked_table(frontier: Frontier, checked: CheckedDesigns) -> Table:
    prop, cost = _head(frontier.prop.name, frontier.prop.unit), _head(frontier.objective.text, frontier.unit)
    heads = [f"{prop}, predicted", f"{prop}, label", f"{cost}, predicted", f"{cost}, label"]
    rows = torch.stack(
        [checked.predictions[:, 0], checked.labels[:, 0], checked.predictions[:, 1], checked.labels[:, 1]], dim=1
    )
    return Table("Labels of an oracle; frontier_checked.csv has the designs.", heads, rows.tolist())


def _head(name: str, unit: str) -> str:
    return f"{printed_name(name)} [{unit}]" if unit not in ("", "1") else printed_name(name)


def _text(frontier: Frontier, checked: CheckedDesigns | None) -> str:
    prop, name = frontier.prop, printed_name(frontier.objective.text)
    low, high = frontier.values.min().item(), frontier.values.max().item()
    text = (
        f"For each {printed_name(prop.name)} from {low:g} to {high:g}{prop.suffix}, the design with the least {name} that a "
        "constrained descent from several starts found, as the surrogate predicts it. No design of the space is expected below "
        "the line."
    )
    if prop.floor is not None and low <= prop.floor:
        text += f" The value {prop.floor:g}{prop.suffix} stands for all at or below it."
    kinds = _kinds(frontier)
    if kinds:
        counts = [f"{kind} ({kinds.count(kind)})" for kind in dict.fromkeys(kinds)]
        text += f" Strains of its designs: {', '.join(counts)}."
    if checked is not None:
        error = (checked.labels - checked.predictions).abs().mean(dim=0).tolist()
        text += (
            f" Labels of {len(checked.designs)} designs differ from the predictions by {error[0]:.2g}{prop.suffix} and "
            f"{error[1]:.2g}{f' {frontier.unit}' if frontier.unit not in ('', '1') else ''} on average."
        )
    return text
