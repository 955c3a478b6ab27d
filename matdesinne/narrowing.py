"""Narrower bounds and fixed values: the parameters and the bounds of strains that follow from them."""

from __future__ import annotations

__all__ = ["narrowed_parameters"]

from collections.abc import Mapping, Sequence

from matdesinne.constraints import Constraints
from matdesinne.errors import ConfigError
from matdesinne.parameters import Parameter, read_edges
from matdesinne.strain import LayerStrain, StrainBounds

Bounds = Mapping[str, Sequence[float | None]]
Fixed = Mapping[str, float | str]


def narrowed_parameters(
    parameters: Sequence[Parameter], layer: LayerStrain | None, strain_bounds: StrainBounds, bounds: Bounds, fixed: Fixed
) -> tuple[list[Parameter], StrainBounds]:
    """Narrow parameters to bounds and fixed values, see `DesignSpace.narrowed`.

    Args:
        parameters: of a design space.
        layer: the strains that bounds may name; ``None`` where there are none.
        strain_bounds: those that hold already.
        bounds: ``[lower, upper]`` by the names of parameters and strains.
        fixed: values, or the label of a category, by name.

    Returns:
        The parameters, and the bounds of the strains.

    Raises:
        ConfigError: if a name is unknown or in both, or a bound or value lies outside.
    """
    narrowed, names = list(parameters), [parameter.name for parameter in parameters]
    strains: StrainBounds = {}
    if layer is not None:
        named = {name: edges for name, edges in bounds.items() if name not in names and name.startswith("strain_")}
        bounds = {name: edges for name, edges in bounds.items() if name not in named}
        strains = {**strain_bounds, **layer.read_bounds(read_edges(named, {}))}
    for name, edges in read_edges(*_without_categories(parameters, bounds, fixed)).items():
        if name not in names:
            raise ConfigError(f"Expected one of the parameters {names}, got {name!r}: correct the name.")
        column = names.index(name)
        narrowed[column] = narrowed[column].narrowed(*edges)
    implied = zip(layer.columns, layer.implied(strains), strict=True) if layer and strains else ()
    for column, (lower, upper) in implied:
        kept = narrowed[column]
        narrowed[column] = kept.narrowed(max(kept.lower, lower), min(kept.upper, upper))
    return narrowed, strains


def _without_categories(
    parameters: Sequence[Parameter], bounds: Bounds, fixed: Fixed
) -> tuple[dict[str, Sequence[float | None]], dict[str, float | str]]:
    """Fix the columns of a category where a label is given for it."""
    columns: dict[str, float] = {}
    categories = Constraints.of(parameters, ()).categories
    for name, numbers in categories.items():
        if name in bounds or name in fixed:
            labels = {parameters[i].label: parameters[i].name for i in numbers}
            if str(fixed.get(name)) not in labels:
                raise ConfigError(f"Expected one of {list(labels)}, got another: use fixed={{{name}: LABEL}}.")
            columns |= {column: float(label == str(fixed[name])) for label, column in labels.items()}
    return dict(bounds), {**{name: value for name, value in fixed.items() if name not in categories}, **columns}
