"""Symbols, labels, bins and files of figures."""

from __future__ import annotations

__all__ = ["axis_label", "bin_edges", "change_text", "printed_name", "printed_unit", "save_figure", "target_label"]

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from matdesinne.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from matdesinne.candidates import Candidates
    from matdesinne.space import Parameter
    from matdesinne.targets import Property


_RESOLUTION = 300
"""Dots for an inch of a PNG file, as journals ask for."""
_SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "γ"}
_LEVELS = {"_fine": " (fine grid)", "_hse_soc": " (HSE06 + SOC)", "_hse": " (HSE06)", "_soc": " (SOC)"}
"""Endings of the names of properties that are computed in several ways."""
_UNITS = {"degree": "°"}


def printed_name(name: str) -> str:
    """Returns the name of a parameter or property as papers print it.

    Example:
        >>> printed_name("alpha"), printed_name("band_gap"), printed_name("band_gap_hse_soc")
        ('α', 'band gap', 'band gap (HSE06 + SOC)')
    """
    ending = next((ending for ending in _LEVELS if name.endswith(ending)), "")
    return _SYMBOLS.get(name, name.removesuffix(ending).replace("_", " ") + _LEVELS.get(ending, ""))


def printed_unit(unit: str) -> str:
    """Returns a unit as papers print it.

    Example:
        >>> printed_unit("V/angstrom"), printed_unit("degree")
        ('V/Å', '°')
    """
    return _UNITS.get(unit, unit.replace("angstrom", "Å"))


def axis_label(quantity: Parameter | Property) -> str:
    """Returns the label of an axis, the name and unit of a quantity: ``band gap [eV]``; without a unit, the name."""
    unit = "" if quantity.unit == "1" else f" [{printed_unit(quantity.unit)}]"
    return printed_name(quantity.name) + unit


def change_text(parameter: Parameter, change: float) -> str:
    """Returns the change of a parameter, in % of its reference if this is not 0, otherwise in its unit.

    Example:
        >>> from matdesinne.space import Parameter
        >>> change_text(Parameter("b", "angstrom", reference=3.16), -0.2212)
        'b −7.0 %'
        >>> change_text(Parameter("electric_field", "V/angstrom"), 0.82)
        'electric field +0.82 V/Å'
    """
    if parameter.reference != 0:
        text = f"{100 * change / parameter.reference:+.1f} %"
    else:
        text = f"{change:+.2f} {printed_unit(parameter.unit)}"
    return f"{printed_name(parameter.name)} {text.replace('-', '−')}"


def bin_edges(low: float, high: float, count: int) -> list[float]:
    """Returns edges of histogram bins; they differ even if all values are equal up to rounding."""
    size = max(abs(low), abs(high))
    slack = 0.0 if high - low > 1e-5 * size else 1e-3 * size or 1.0
    return np.linspace(low - slack, high + slack, count, dtype=np.float64).tolist()


def target_label(candidates: Candidates) -> str:
    """Returns the target of candidates as figures print it: ``band gap ≤ 0 eV``."""
    text = candidates.target.format(candidates.properties)
    for prop in candidates.properties:
        text = text.replace(prop.name, printed_name(prop.name))
    return text.replace("<=", "≤").replace(">=", "≥")


def save_figure(figure: Figure, folder: Path, name: str) -> Path:
    """Write ``NAME.pdf`` with vector graphics and ``NAME.png`` with 300 dots for an inch.

    Returns:
        The path of the PNG file.
    """
    for suffix in (".pdf", ".png"):
        with atomic_path(folder / f"{name}{suffix}") as temporary:
            figure.savefig(temporary, dpi=_RESOLUTION)
        figure.set_layout_engine("none")  # the second file keeps the layout of the first, which takes a sixth of the time
    return folder / f"{name}.png"
