"""Narrower bounds of parameters, as a user writes them."""

from __future__ import annotations

__all__ = ["narrower_edges", "read_edges"]

from collections.abc import Mapping, Sequence

import torch

from matdesinne.errors import ConfigError

Edges = tuple[float | None, float | None]
"""Lower and upper bound; ``None`` keeps the bound that the parameter has."""


def read_edges(bounds: Mapping[str, Sequence[float | None]], fixed: Mapping[str, float]) -> dict[str, Edges]:
    """Read the bounds of each parameter; a fixed value is both bounds.

    Args:
        bounds: ``[lower, upper]`` by the name of a parameter.
        fixed: value by the name of a parameter.

    Raises:
        ConfigError: if bounds are no pair, a fixed value is missing, or a name has both.
    """
    twice = sorted(set(bounds) & set(fixed))
    if twice:
        raise ConfigError(f"Expected bounds or a fixed value, got both for {twice}: drop one.")
    for name, pair in bounds.items():
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise ConfigError(f"Expected [lower, upper] for {name}, got {pair!r}: give two numbers, null to keep a bound.")
    for name, value in fixed.items():
        if value is None:
            raise ConfigError(f"Expected a number to fix {name} at, got none: give one, or drop it.")
    return {name: (pair[0], pair[1]) for name, pair in bounds.items()} | {name: (value, value) for name, value in fixed.items()}


def narrower_edges(name: str, unit: str, known: tuple[float, float], narrower: Edges) -> tuple[float, float]:
    """Check that edges lie inside the known ones and round them inwards to float32.

    A single value is rounded to the nearest float32 number.

    Args:
        name: of the parameter.
        unit: of the parameter.
        known: the bounds that the parameter has.
        narrower: the new ones.

    Raises:
        ConfigError: if they are no numbers, not in order, or outside the known ones.
    """
    lower, upper = (old if new is None else new for old, new in zip(known, narrower, strict=True))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (lower, upper))
    if not (numbers and known[0] <= lower <= upper <= known[1]):
        raise ConfigError(
            f"Expected {known[0]:g} <= lower <= upper <= {known[1]:g} {unit} for {name}, got {lower!r} and {upper!r}: "
            "stay in the design space."
        )
    nearest = torch.tensor([lower, upper], dtype=torch.float32)
    inwards = torch.nextafter(nearest, nearest.flip(0))
    first, last = nearest.tolist()
    first = first if first >= lower else float(inwards[0])
    last = last if last <= upper else float(inwards[1])
    return first, max(first, last)
