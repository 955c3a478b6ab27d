"""Labels, bins and files of figures."""

from __future__ import annotations

__all__ = ["axis_label", "bin_edges", "save_figure", "target_label"]

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from matdesinne.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from matdesinne.candidates import Candidates
    from matdesinne.space import Parameter
    from matdesinne.targets import Property


def axis_label(quantity: Parameter | Property) -> str:
    """Returns the label of an axis, the name and unit of a quantity: ``band gap [eV]``."""
    return f"{quantity.name.replace('_', ' ')} [{quantity.unit}]"


def bin_edges(low: float, high: float, count: int) -> list[float]:
    """Returns edges of histogram bins; they differ even if all values are equal up to rounding."""
    size = max(abs(low), abs(high))
    slack = 0.0 if high - low > 1e-5 * size else 1e-3 * size or 1.0
    return np.linspace(low - slack, high + slack, count, dtype=np.float64).tolist()


def target_label(candidates: Candidates) -> str:
    """Returns the target of candidates as figures print it: ``band gap ≤ 0 eV``."""
    return candidates.target.format(candidates.properties).replace("_", " ").replace("<=", "≤").replace(">=", "≥")


def save_figure(figure: Figure, folder: Path, name: str) -> Path:
    """Write ``NAME.pdf`` with vector graphics and ``NAME.png``.

    Returns:
        The path of the PNG file.
    """
    for suffix in (".pdf", ".png"):
        with atomic_path(folder / f"{name}{suffix}") as temporary:
            figure.savefig(temporary, dpi=120)
    return folder / f"{name}.png"
