"""What candidates change: the in-plane strain of a layer, and the smallest change of the start of a search."""

from __future__ import annotations

__all__ = ["start_sentence", "strain_sentence"]

import torch

from matdesinne.candidates import Candidates
from matdesinne.reporting.drawing import printed_name

_UNCHANGED = 1e-3
"""Changes below this share of half the width of the box are not named."""


def strain_sentence(candidates: Candidates) -> str:
    """Say the median and the range of the principal strains of a layer in percent; empty where designs are no layers."""
    layer = candidates.space.layer
    if layer is None or len(candidates) == 0:
        return ""
    strains = layer(candidates.designs)
    parts = []
    for name in ("strain_1", "strain_2"):
        percent = 100 * strains[name]
        parts.append(f"{name} {percent.median():.1f} % ({percent.min():.1f} to {percent.max():.1f} %)")
    return f"Principal in-plane strains, median (range): {', '.join(parts)}."


def start_sentence(candidates: Candidates) -> str:
    """Say what the candidate nearest to the start changes; empty where there is no start."""
    if candidates.start is None or len(candidates) == 0:
        return ""
    nearest = candidates.nearest_first().take(torch.tensor([0]))
    start, changes = candidates.start, []
    for parameter, old, new, unit in zip(
        candidates.space.parameters, start.design.tolist(), nearest.designs[0].tolist(), start.half_width.tolist(), strict=True
    ):
        if abs(new - old) > _UNCHANGED * unit:
            suffix = "" if parameter.unit == "1" else f" {parameter.unit}"
            changes.append(f"{printed_name(parameter.name)} from {old:.4g} to {new:.4g}{suffix}")
    distance = start.distance(nearest.designs).item()
    return f"The smallest change of the start found: {', '.join(changes) or 'none'} ({distance:.2g} half-widths of the box)."
